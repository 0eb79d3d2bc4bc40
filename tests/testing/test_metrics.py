"""The contract of metrics: ours keep it, and each check sees what it is for."""

import pytest

from harness.scoring import catalog
from harness.testing import metrics
from harness.testing.methods import Broken
from tests.support.own_code import importable, write

CODE = """
import itertools
from harness.scoring.custom import metric
calls = itertools.count()
@metric(direction="maximize")
def good(predictions, references): return sum(one in other for one, other in zip(predictions, references))
@metric(direction="minimize")
def turned(predictions, references): return good(predictions, references)
@metric()
def drifts(predictions, references): return next(calls)
@metric()
def first(predictions, references): return float(len(predictions[0]))
@metric()
def spoils(predictions, references, input):
    references[0].append("x")
    return 1.0
@metric()
def changing(predictions, references): return {"a": 1.0} if predictions[0] == references[0][0] else {"b": 1.0}
"""


@pytest.fixture(autouse=True)
def own(tmp_path):
    with importable(write(tmp_path, own_c=CODE)):
        yield


@pytest.mark.parametrize("check", metrics.CHECKS)
@pytest.mark.parametrize("name", [*catalog.answer_metrics(), "own_c:good", "own_c:spoils"])
def test_ours_and_a_good_one_keep_the_contract(name, check):
    if check == "direction" and name == "names_target":
        pytest.skip("right answers here do not name the targets")
    assert isinstance(metrics.CHECKS[check](name), str)


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("turned", "direction", "turned is 5 for right answers and 0 for empty ones, but its direction is minimize"),
        ("drifts", "determinism", "the same answers give"),
        ("first", "order of rows", "in another order give"),
        ("changing", "finite numbers", "give the same always"),
    ],
)
def test_a_metric_that_breaks_a_promise_is_seen(name, check, message):
    with pytest.raises(Broken, match=message):
        metrics.CHECKS[check](f"own_c:{name}")


def test_a_metric_that_spoils_its_inputs_is_seen(monkeypatch):
    def spoil(path, answers, references, columns):
        answers.clear()
        return {}

    monkeypatch.setattr(metrics, "_score", spoil)
    with pytest.raises(Broken, match="it changes the lists that it is given"):
        metrics.CHECKS["leaves its inputs"]("own_c:spoils")
