"""Whatever is typed, the boundary gives a plan or one readable message; never a traceback."""

import json
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.config import names, schema
from harness.config.messages import explain, is_input_fault, misused_groups
from harness.plan.read import read_config
from harness.plan.spec import Plan, plan_from_dict
from tests.support.configs import overridden

LEAVES = [
    key for key in names.known_settings() if not any(other.startswith(f"{key}.") for other in names.known_settings())
]
USED = [key for key in LEAVES if key.partition(".")[0] not in schema.SHEETS or key.startswith(("lora.", "adalora."))]


def sampled(examples: int) -> settings:
    """The same examples on every run: a new fault is found by raising the number, not by chance in a release."""
    noise = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=noise)


numbers = st.one_of(
    st.integers(-3, 40).map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.sampled_from(["inf", "-inf", "nan", "1e400", "-0.0", "1e-400", "0x10", "1_000", "١٢"]),
)
words = st.one_of(
    st.sampled_from(
        ["null", "true", "false", "", "''", "???", "~", "~nobody_at_all/x", "../..", "/dev/null", "a b", "@", "*"]
    ),
    st.sampled_from(
        ["${oops}", "${seed}", "${lora}", "${.r}", "${oc.env:HOME}", "${oc.env:NO_SUCH}", "${now:%Y}", "${"]
    ),
    st.sampled_from(
        ["all-linear", "(", "[a-z]+", "test", "run", "cosine", "pissa", "bleu", "药方", "é", "\udce4", "a\0b"]
    ),
    st.text(string.ascii_letters + string.digits + "_-./:%", max_size=300),
    st.text(max_size=12),
)
atoms = st.one_of(numbers, words)
nested = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(st.sampled_from(["a", "r", "train", "q_proj", "1", "true"]), inner, max_size=2).map(
            lambda items: "{" + ",".join(f"{key}: {value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=6,
)
known_keys = st.one_of(st.sampled_from(USED), st.sampled_from(list(names.known_settings())))
misspelt = st.tuples(known_keys, st.sampled_from(["x", "_", ".", "..", "r", " "])).map("".join)
override = st.tuples(
    st.sampled_from(["", "", "", "", "+", "++", "~"]), st.one_of(known_keys, known_keys, known_keys, misspelt), nested
).map(lambda parts: f"{parts[0]}{parts[1]}={parts[2]}")


def outcome(onto: tuple[str, ...], *overrides: str) -> Plan | str:
    """The plan, or the text that the command would print."""
    try:
        return read_config(overridden(*overrides, onto=onto))[0]
    except Exception as error:
        if not is_input_fault(error):
            raise
        return explain(error)


def check(found: Plan | str) -> None:
    if isinstance(found, str):
        assert found.startswith("error: ")
        assert len(found.removeprefix("error: ").strip()) > 10
        for noise in ("Traceback", "full_key", "object_type", "hydra.cc", "append to your config"):
            assert noise not in found
        assert len(found) < 5000
        return
    text = json.dumps(found.as_dict(), allow_nan=False)  # what a record must be able to hold
    text.encode()
    assert plan_from_dict(json.loads(text)).fingerprint == found.fingerprint


@pytest.mark.slow
@sampled(250)
@given(st.sampled_from(["lora", "adalora"]), override)
@example("lora", "runs_dir=" + "x" * 300)
@example("lora", "runs_dir=" + "x/" * 4000)
@example("lora", "model.path=" + "x/" * 4000)
@example("lora", "data.path=" + "x/" * 4000)
@example("lora", "tracker.dir=~nobody_at_all/x")
@example("lora", "scoring.forgetting=${oc.env:HOME}")
@example("lora", "lora.target_modules='a{99999999999}'")
@example("lora", "lora.r=99999999999999999999999999999999")
@example("lora", "+model.config_only={1: nan}")
@example("lora", "lora.target_modules=${lora.target_modules}")
@example("lora", "prompt='\udce4'")
@example("lora", "~lora.r")
@example("lora", "")
def test_any_override_gives_a_plan_or_one_message(weightless, method, text):
    check(outcome((f"peft={method}", f"model.path={weightless}"), text))


@pytest.mark.slow
@sampled(60)
@given(st.lists(override, min_size=2, max_size=4))
def test_any_overrides_together_give_a_plan_or_one_message(weightless, texts):
    check(outcome(("peft=lora", f"model.path={weightless}"), *texts))


@sampled(100)
@given(st.text(max_size=40))
def test_any_text_at_all_gives_a_plan_or_one_message(weightless, text):
    check(outcome(("peft=lora", f"model.path={weightless}"), text))


@sampled(100)
@given(st.text(max_size=60))
def test_guards_before_composition_never_raise(text):
    for fault in misused_groups([text, f"peft={text}", f"={text}"]):
        assert fault
    assert len(names.nearest_keys(text)) <= 3
    assert names.unknown_key(text, text)


floats = [key for key, kind in names.known_settings().items() if kind in (float, float | None) and key in USED]


@pytest.mark.parametrize("key", floats)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_number_that_is_not_finite_is_refused_wherever_a_float_is_used(weightless, key, value):
    method = key.partition(".")[0] if key.startswith("adalora") else "lora"
    found = outcome((f"peft={method}", f"model.path={weightless}"), f"{key}={value}")
    assert isinstance(found, str), "accepted"
    assert key in found


def test_accepted_numbers_are_those_typed(weightless):
    found = outcome(("peft=lora", f"model.path={weightless}"), "trainer.weight_decay=1e-3", "lora.r=7")
    assert isinstance(found, Plan)
    assert found.trainer.weight_decay == 0.001
    assert found.settings["r"] == 7
