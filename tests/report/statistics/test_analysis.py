"""All statistics of a group and a score together."""

import numpy as np
import pytest

from harness.errors import ConfigFault
from harness.report.statistics.analysis import analyses, analysis_of, resolve_reference
from tests.support.scores import a_run, crossed, runs_of, with_rows


@pytest.fixture
def runs():
    rng = np.random.default_rng(5)
    made = []
    for name, mean in (("lora r=8", 80.0), ("lora r=16", 80.5), ("ia3", 30.0)):
        made += with_rows(name, crossed(rng, (5, 100), mean=mean, seed=1, row=5, rest=10))
    return made


def test_groups_and_scores_are_never_pooled(runs):
    other = runs_of("lora r=8", [1.0, 2.0], group="another model")
    loss = runs_of("lora r=8", [0.1, 0.2], metric="loss") + runs_of("ia3", [0.3, 0.4], metric="loss")
    found = analyses([*runs, *other, *loss])
    assert [(each.group, each.metric) for each in found] == [
        ("another model", "rouge_l"),
        ("g", "rouge_l"),
        ("g", "loss"),
    ]
    assert [len(each.comparisons) for each in found] == [0, 2, 1]
    assert found[0].reference is None


def test_means_stand_in_the_order_of_the_score(runs):
    assert list(analysis_of(runs).means)[2] == "ia3"
    losses = runs_of("a", [0.2, 0.3], metric="loss") + runs_of("b", [0.1, 0.2], metric="loss")
    assert list(analysis_of(losses).means) == ["b", "a"]


def test_a_named_reference_is_compared_with_all_others(runs):
    found = analysis_of(runs, reference="ia3")
    assert (found.reference, found.chosen) == ("ia3", False)
    assert {each.other: each.verdict for each in found.comparisons} == {"lora r=8": "better", "lora r=16": "better"}
    assert [each.kind for each in found.findings] == ["best", "difference", "difference", "noise"]


def test_without_a_reference_the_best_is_compared_and_its_runner_up_described(runs):
    found = analysis_of(runs)
    best, second, *_ = found.means
    assert (found.reference, found.chosen) == (best, True)
    assert [each.kind for each in found.findings] == ["best", "no difference", "noise"]
    assert found.findings[1].keys == (best, second)
    assert "To see a difference of 1 point" in found.findings[1].text
    assert "To see a difference of 30 points" not in found.findings[1].text


def test_a_reference_of_another_group_leaves_the_best_as_the_reference(runs):
    assert analysis_of(runs, reference="elsewhere").chosen


def test_floors_are_those_of_as_many_seeds_as_the_runs_have(runs):
    found = analysis_of(runs).floors
    assert set(found) == {"lora", "ia3"}
    assert {floor.n for floor in found.values()} == {5}
    assert found["lora"].configurations == 2


def test_single_runs_have_means_and_nothing_is_claimed():
    found = analysis_of([a_run("lora", 0, 80.0), a_run("ia3", 0, 30.0)])
    assert [each.n for each in found.means.values()] == [1, 1]
    assert [each.kind for each in found.findings] == ["best"]
    assert "No order is claimed" in found.findings[0].text


@pytest.mark.parametrize(
    ("text", "key"), [("ia3", "ia3"), ("lora r=8", "lora r=8"), ("abcd", "lora r=16"), ("abcdef0123", "lora r=16")]
)
def test_a_reference_is_named_by_method_label_or_fingerprint(text, key):
    runs = [a_run("lora r=8", 0, 1.0), a_run("lora r=16", 0, 1.0, fingerprint="abcdef0123"), a_run("ia3", 0, 1.0)]
    assert resolve_reference(runs, text) == key


def test_a_reference_that_names_none_or_several_is_refused_with_the_choices(runs):
    with pytest.raises(ConfigFault, match="names no run of this report; name one of: ia3, lora r=16, lora r=8"):
        resolve_reference(runs, "full")
    with pytest.raises(ConfigFault, match="names 2 configurations; name one of them: lora r=16, lora r=8"):
        resolve_reference(runs, "lora")
