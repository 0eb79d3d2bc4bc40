"""How values are shown: with units, direction, sign and enough decimals."""

import pytest

from harness.report.cells import TableCell
from harness.report.columns import score_columns, short_count
from harness.report.table import build_table
from harness.scoring.catalog import SCORES
from tests.support.records import AFTER, BEFORE, a_record, six
from tests.support.tables import parsed, printed


def test_a_score_shows_value_and_signed_change_and_the_csv_keeps_both_exactly():
    table = six()
    text = printed(table, 200)
    assert "62.3 (+60.0)" in text
    assert "1.500 (-2.500)" in text
    assert "0.0 (±0.0)" in text
    row = parsed(table)[0]
    assert float(row["rouge_l"]) == AFTER["rouge_l"]
    assert float(row["rouge_l_change"]) == AFTER["rouge_l"] - BEFORE["rouge_l"]
    assert int(row["trainable_parameters"]) == 1_234_567
    assert int(row["peak_train_bytes"]) == 2**30
    assert "1.2M" in text


def test_headers_say_which_direction_is_better():
    text = printed(six(), 200)
    assert "rouge_l ↑" in text
    assert "loss ↓" in text
    assert "perplexity ↓" in text


def test_pruned_parameters_show_both_counts():
    run = a_record("a", "adalora")
    run["parameters"] |= {"trainable": 1_800_000, "trainable_final": 1_200_000}
    text = printed(build_table([TableCell("", "a", "adalora", "")], {"a": run}), 140)
    assert "1.8M→1.2M" in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (576, "576"),
        (999, "999"),
        (1000, "1.0k"),
        (9216, "9.2k"),
        (999_949, "999.9k"),
        (999_950, "1.0M"),
        (31 * 10**8, "3.1B"),
    ],
)
def test_short_counts_carry_into_the_next_unit(count, text):
    assert short_count(count) == text


def test_reused_records_are_marked():
    table = build_table([TableCell("", "a", "lora", "", reused=True)], {"a": a_record("a")})
    assert "reused" in printed(table, 140)
    assert parsed(table)[0]["reused"] == "True"


def test_score_of_other_code_is_shown_without_a_direction():
    record = a_record("a")
    record["scores"]["after"]["of_other_code"] = 12.34
    table = build_table([TableCell("", "a", "lora", "")], {"a": record})
    [column] = [column for column in table.columns if column.name == "of_other_code"]
    assert (column.label, column.direction, column.show(table.rows[0])) == ("of_other_code", None, "12.3")


def test_scores_that_repeat_others_are_dropped_first_then_those_on_the_right():
    columns = score_columns([*SCORES, "of_other_code"], lambda name: lambda row: "")
    by_place = [column.name for column in sorted(columns, key=lambda column: column.dropped)]
    repeating = [name for name in SCORES if SCORES[name].repeats]
    assert "perplexity" in repeating
    assert by_place[: len(repeating) + 1] == [*repeating, "of_other_code"]
    assert by_place[-1] == next(iter(SCORES))
    assert len(by_place) == len(SCORES) + 1
