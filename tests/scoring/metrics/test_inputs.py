"""Rows as the metric modules read them."""

import pytest

from harness.scoring.metrics.inputs import percent, reference_count, reference_lists, reference_streams


def test_one_reference_per_row_or_several_become_lists():
    assert reference_lists(["a", ""]) == [["a"], [""]]
    assert reference_lists([("a", "b"), ["c"]]) == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("references", "message"),
    [([], "0 rows"), ([["a"], []], r"references\[1\] is empty \(1 such rows\); give each row one or more texts")],
)
def test_undefined_scores_are_refused(references, message):
    with pytest.raises(ValueError, match=message):
        reference_lists(references)


def test_count_of_references_varies_or_is_a_number():
    assert reference_count([["a", "b"], ["c", "d"]]) == "2"
    assert reference_count([["a", "b"], ["c"]]) == "var"


def test_streams_fill_missing_references_with_none():
    assert reference_streams([["a", "b"], ["c"]]) == [["a", "c"], ["b", None]]


def test_percent_is_the_mean_times_100():
    assert percent([1.0, 0.0, 0.5, 0.5]) == 50.0
