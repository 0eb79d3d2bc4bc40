"""Names the target: the first candidate in an answer counts."""

import pytest

from harness.scoring.compute import compute_metrics, load_metric


def test_names_target_counts_only_the_first_candidate() -> None:
    predictions = ["小柴胡颗粒。", "小柴胡颗粒", "板蓝根和柴胡颗粒", "多喝水"]
    targets = ["小柴胡颗粒", "柴胡颗粒", "柴胡颗粒", "板蓝根"]
    values, signatures = compute_metrics(["names_target"], predictions, [["x"]] * 4, targets, "zh")
    assert values == {"names_target": 25.0}
    assert signatures["names_target"].startswith("names:3|")


def test_more_candidates_hide_a_shorter_name() -> None:
    one = {"predictions": ["小柴胡颗粒"], "references": ["柴胡颗粒"]}
    assert load_metric("names_target").compute(**one)["names_target"] == 100
    assert load_metric("names_target").compute(**one, candidates=["小柴胡颗粒"])["names_target"] == 0


def test_blank_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"references\[1\] names no target"):
        compute_metrics(["names_target"], ["a", "b"], [["a"], ["b"]], ["a", " "], "zh")
