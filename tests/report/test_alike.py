"""Which runs may be compared, which are replicates, and how others are marked."""

import pytest

from harness.report import alike
from harness.report.fields import method_name
from tests.support.reports import plan_dict


def record(*overrides, method="lora", seed=0, **more):
    return {
        "method": method,
        "plan": plan_dict(method, seed, *overrides),
        "code": {"version": "1"},
        "device": {},
    } | more


def keys(made):
    plan = alike.effective(made)
    return alike.configuration_key(made, plan), alike.group_key(plan), alike.numerics_key(made)


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (record(seed=2), (False, False, False)),
        (record("lora.r=2"), (True, False, False)),
        (record("trainer.learning_rate=0.1"), (True, False, False)),
        (record("data.limits.train=50"), (True, False, False)),
        (record("model.device=cuda", "model.dtype=float32"), (False, False, True)),
        (record("model.attn_implementation=eager"), (False, False, True)),
        (record("trainer.threads=2"), (False, False, True)),
        (record("model.dtype=bfloat16"), (True, False, False)),
        (record("model.prune=0.5"), (True, False, False)),
        (record("data.template=alpaca"), (True, True, False)),
        (record("scoring.split=validation"), (True, True, False)),
        (record("scoring.metrics=[bleu]"), (True, True, False)),
        (record(code={"version": "2"}), (True, False, False)),
        (record(device={"type": "cpu", "name": "other"}), (False, False, True)),
        (record(inferred={"base_weights": "x"}), (True, False, False)),
    ],
)
def test_seeds_and_numerics_are_replicates_settings_are_not_and_other_rows_are_another_group(other, changed):
    assert tuple(one != two for one, two in zip(keys(record()), keys(other), strict=True)) == changed


def test_library_methods_are_named_by_their_type():
    plan = {"settings": {"type": "C3A"}}
    assert method_name({"method": "library", "plan": plan}) == "library:C3A"
    assert method_name({"method": "lora", "plan": {"settings": {}}}) == "lora"


def test_settings_are_compared_within_a_method_and_the_rest_among_all():
    plans = {
        "a": ("lora", alike.effective(record("lora.r=4"))),
        "b": ("lora", alike.effective(record("lora.r=8", "trainer.epochs=2"))),
        "c": ("ia3", alike.effective(record(method="ia3"))),
        "d": ("lora", alike.effective(record("lora.r=4", "model.prune=0.5"))),
    }
    differ = alike.varying(plans)
    assert differ["a"] == {"r": 4, "trainer.epochs": 6.0}
    assert differ["b"] == {"r": 8, "trainer.epochs": 2.0}
    assert differ["c"] == {"trainer.epochs": 6.0}
    assert differ["d"] == {"r": 4, "trainer.epochs": 6.0, "model.prune": 0.5}


def test_what_differs_from_most_of_the_group_is_marked():
    made = {name: record(code={"version": "1" * 16 if name != "c" else "2" * 16}) for name in "abc"}
    made["b"] |= {"inferred": {"dtype": "bfloat16"}}
    assert alike.marks(made) == {"a": [], "b": ["dtype bfloat16"], "c": ["code 222222222222"]}


def test_rows_that_are_not_comparable_are_listed():
    rows = [(1, record()), (2, record(device={"type": "cuda", "name": "H100"})), (3, record())]
    for number, (_, each) in enumerate(rows):
        each["scores"] = {"signatures": {"bleu": str(number // 2)}}
    notes = alike.differences(rows, ["bleu"])
    assert notes[0].startswith("rows differ in device (times and memory are not comparable): 1, 3: ")
    assert notes[0].endswith("2: cuda H100")
    assert notes[1].startswith("rows differ in signature of bleu (its values are not comparable): 1-2: 0; 3: 1")


@pytest.mark.parametrize(("numbers", "text"), [([1, 2, 3, 7], "1-3, 7"), ([5], "5"), ([2, 1], "1-2"), ([], "")])
def test_numbers_are_shown_as_ranges(numbers, text):
    assert alike.ranges(numbers) == text
