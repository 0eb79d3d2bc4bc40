"""Conditions on records: what they mean, that nothing is evaluated, and what a wrong one is told."""

import pytest

from harness.errors import ConfigFault
from harness.report.expression import Condition

FIELDS = {
    "method": "lora", "seed": 2, "fingerprint": "39e512345678", "model.name": "smollm2_135m", "loss": 0.5, "lora.r": 8,
    "data.path": "~/a b/数据", "rows.bad": None,
    "status": "finished", "finished": "2026-01-01T00:00:00Z",
    "trainer.keep_best": True, "tags": ["paper", "a b"], "model.revision": "12",
}  # fmt: skip


def holds(text):
    condition = Condition(text)
    condition.check_fields(FIELDS)
    return condition.holds(FIELDS, frozenset(FIELDS))


@pytest.mark.parametrize(
    "text",
    [
        "method in [lora, ia3] and model.name == smollm2_135m and seed < 3",
        "fingerprint == 39e512345678",
        "model.revision == 12",
        "seed in [2,3]",
        "1 < seed <= 2",
        "not seed == 3",
        "loss < 1e0",
        "loss<=.5",
        "rows.bad == null",
        "trainer.keep_best == true",
        "paper in tags",
        "'a b' in tags",
        "data.path == '~/a b/数据'",
        "数据 in data.path",
        "lora.r>=8 or method == ia3",
        "(seed == 1 or seed == 2) and method != ia3",
        "method not in (ia3, full)",
        "trainer.keep_best",
        "lora.r != null",
        "status == finished",
        "status in [seed, finished]",
        "finished != status",
        "seed < lora.r",
    ],
)
def test_conditions_that_hold(text):
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "method == ia3",
        "seed == 1",
        "seed < method",
        "rows.bad < 3",
        "rows.bad > 3",
        "trainer.keep_best == 1",
        "fingerprint == 39e5",
        "other in tags",
        "status != finished",
        "seed == lora.r",
    ],
)
def test_conditions_that_do_not_hold(text):
    assert not holds(text)


def test_a_field_that_only_other_records_have_is_null():
    condition = Condition("lora.r < 16")
    assert not condition.holds({"method": "ia3"}, frozenset({"lora.r", "method"}))
    assert Condition("lora.r == null").holds({"method": "ia3"}, frozenset({"lora.r"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import os",
        "__import__('os')",
        "seed + 1 == 3",
        "lambda: 1",
        "[x for x in y]",
        "seed == 2 if seed else 3",
        "seed == (2",
        "(" * 500,
        "seed[0] == 1",
        "method == f(lora)",
        "seed == 'un",
        "[seed]",
        "a and",
    ],
)
def test_what_is_not_a_condition_is_refused_with_an_example(text):
    with pytest.raises(
        ConfigFault, match=r"report\.where=.*(is not|cannot be read|not a comparison).*write, for example"
    ):
        Condition(text)


def test_single_equals_sign_is_explained():
    with pytest.raises(ConfigFault, match="has a single =; write == to compare"):
        Condition("seed=2")


def test_unknown_fields_are_named_with_those_they_may_mean():
    with pytest.raises(ConfigFault) as caught:
        Condition("methd == lora and name == x and 3 < 4").check_fields(FIELDS)
    first, second, third = str(caught.value).splitlines()
    assert first == "report.where: no record has a field methd; did you mean method?"
    assert "no record has a field name; did you mean model.name?" in second
    assert "a comparison without a field" in third


def test_fields_are_listed_in_their_order():
    assert Condition("seed < 3 and method == lora and seed > 0").fields(FIELDS) == ["seed", "method"]
