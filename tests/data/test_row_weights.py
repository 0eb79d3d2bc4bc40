"""Weights of training rows: from a column, from the output, and what is refused."""

import pytest

from harness.data.checks import data_faults
from harness.data.dataset import read_splits
from tests.support.data_cases import ALPACA, fault, jsonl, settings

WEIGHT = {**ALPACA, "weight": "w"}


def rows(*weights):
    return [
        {"instruction": f"q{number}", "input": "", "output": "yes" if number % 2 else "no", "w": weight}
        for number, weight in enumerate(weights)
    ]


def train(file, columns=WEIGHT, **changes):
    read = read_splits(settings(file, columns, fractions=(0.0, 0.0), **changes))
    return [row.weight for row in read.splits["train"]]


def test_weights_are_numbers_or_their_text_and_absent_ones_are_1(tmp_path):
    file = jsonl(tmp_path, [*rows(2, 0.5, "1.5", None, ""), {"instruction": "q", "output": "no", "input": ""}])
    assert train(file) == [2.0, 0.5, 1.5, 1.0, 1.0, 1.0]
    assert train(file, ALPACA) == [1.0] * 6


def test_weights_of_outputs_multiply_those_of_rows(tmp_path):
    file = jsonl(tmp_path, rows(2, 0.5, 1))
    assert train(file, class_weights={"no": 3.0}) == [6.0, 0.5, 3.0]


@pytest.mark.parametrize("weight", [0, -1, "much", True, [1], 1e999])
def test_other_values_make_a_bad_row(tmp_path, weight):
    assert "row 2: field 'w' is" in fault(jsonl(tmp_path, rows(1, weight)), WEIGHT)


def test_a_column_that_no_training_row_has_is_refused(tmp_path):
    said = fault(jsonl(tmp_path, rows(1, 1)), {**ALPACA, "weight": "wieght"})
    assert "data.columns.weight=wieght: rows.jsonl has no such column; it has instruction" in said


def test_an_output_that_no_training_row_has_is_refused(tmp_path):
    said = fault(jsonl(tmp_path, rows(1, 1)), class_weights={"maybe": 2.0}, fractions=(0.0, 0.0))
    assert "data.class_weights names maybe, which no training row has as its output; its rows have no, yes" in said


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"no": 0.0}, "weights.no=0.0"),
        ({"no": "x"}, "weights.no=x is not a number"),
        ([1], "weights=[1] is not a weight"),
    ],
)
def test_a_weight_of_an_output_is_a_number_above_0(weights, said):
    [found] = data_faults(settings("rows.jsonl", class_weights=weights))
    assert said in found


def test_validation_rows_need_no_weights(tmp_path):
    jsonl(tmp_path, rows(2, 3), "train.jsonl")
    plain = [{name: value for name, value in row.items() if name != "w"} for row in rows(1, 1)]
    jsonl(tmp_path, plain, "validation.jsonl")
    read = read_splits(
        settings(tmp_path, WEIGHT, splits=("train.jsonl", "validation.jsonl", None), fractions=(0.0, 0.0))
    )
    assert [row.weight for row in read.splits["validation"]] == [1.0, 1.0]


def test_the_column_is_not_reported_as_unread(tmp_path):
    renamed = [{**row, "weight": row.pop("w")} for row in rows(2, 3)]
    file = jsonl(tmp_path, renamed)
    whole = {"fractions": (0.0, 0.0)}
    assert any("weight is not read" in note for note in read_splits(settings(file, **whole)).notes)
    assert not read_splits(settings(file, {**ALPACA, "weight": "weight"}, **whole)).notes
