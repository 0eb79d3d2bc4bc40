"""final_number and item_f1: by hand on small answers."""

import pytest

from harness.scoring.compute import compute_metrics


def value(name: str, predictions: list[str], references: list[list[str]]) -> tuple[float, str]:
    values, signatures = compute_metrics([name], predictions, references, None, "13a")
    return values[name], signatures[name]


def test_final_number_counts_results_however_they_are_reached() -> None:
    references = [["2+2=4\n#### 4"], ["#### 1,000"], ["#### 7"], ["#### 8"]]
    found = value("final_number", ["It is 4.", "#### 1000 dollars", "7, no, 9", "nothing"], references)
    assert found == (50.0, "numbers:4|match:after-####-or-boxed-or-last|nrefs:1")
    assert value("final_number", ["5"], [["#### 4", "#### 5"]])[0] == 100.0
    without = value("final_number", ["4", "five"], [["4"], ["five"]])
    assert without == (50.0, "numbers:1|match:after-####-or-boxed-or-last|nrefs:1")


def test_item_f1_is_micro_averaged_over_rows() -> None:
    references = [['{"intent": "A", "slots": {"x": "1", "y": "2"}}'], ['{"intent": "B", "slots": {}}']]
    predictions = ['{"intent": "A", "slots": {"y": "2", "z": "3"}}', "not JSON"]
    # 2 in common; 3 + 3 in the first row, 1 + 1 in the second
    assert value("item_f1", predictions, references)[0] == pytest.approx(100 * 4 / 8)
    assert value("item_f1", ["", ""], [[""], [""]])[0] == 100.0
    assert value("item_f1", ["a\nb"], [["c", "b\na"]])[0] == 100.0
