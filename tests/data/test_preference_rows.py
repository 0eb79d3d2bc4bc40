"""Pairs of answers: columns, both answers as tokens, and what makes a bad row."""

import pytest

from harness.data.checks import data_faults
from harness.data.dataset import read_splits
from harness.data.tokenize import tokenize_splits
from tests.support.data_cases import byte_tokenizer, fault, jsonl, settings

COLUMNS = {"instruction": "prompt", "output": "chosen", "rejected": "rejected"}
ROW = {"prompt": "q", "chosen": "yes", "rejected": "maybe"}
PAIRS = {"format": "preference", "group_by_prompt": False, "fractions": (0.0, 0.0)}


def test_both_answers_follow_the_same_prompt(tmp_path):
    data = settings(jsonl(tmp_path, [ROW]), COLUMNS, **PAIRS)
    read = read_splits(data)
    [row] = tokenize_splits(read, data, byte_tokenizer()).splits["train"]
    assert (row.row.output, row.row.rejected) == ("yes", "maybe")
    rejected = row.with_rejected()
    assert rejected.input_ids[: row.prompt_length] == row.input_ids[: row.prompt_length]
    assert byte_tokenizer().decode(rejected.answer_ids).strip() == "maybe"
    assert sum(label != -100 for label in rejected.labels) == len(rejected.answer_ids) + 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": "yes"}, "row 2: fields 'chosen' and 'rejected' are the same answer"),
        ({"rejected": ""}, "row 2: field 'rejected' is empty"),
        ({"rejected": [{"role": "assistant", "content": "no"}]}, "row 2: field 'rejected' is a list, not text"),
        ({"chosen": ["yes", "sure"]}, "row 2: field 'chosen' is a list, not text"),
    ],
)
def test_pairs_that_prefer_nothing_are_bad_rows(tmp_path, change, reason):
    assert reason in fault(jsonl(tmp_path, [ROW, {**ROW, **change}]), COLUMNS, **PAIRS)


def test_a_rejected_answer_that_does_not_fit_is_a_bad_row(tmp_path):
    long = {**ROW, "rejected": "m" * 100}
    data = settings(jsonl(tmp_path, [ROW, long]), COLUMNS, **PAIRS, max_tokens=64, on_bad_row="skip")
    found = tokenize_splits(read_splits(data), data, byte_tokenizer())
    assert len(found.splits["train"]) == 1
    [bad] = found.bad
    assert bad.number == 2
    assert bad.reason.startswith("its rejected answer: it is ")


def test_a_column_that_no_row_has_is_refused(tmp_path):
    said = fault(jsonl(tmp_path, [ROW]), {**COLUMNS, "rejected": "worse"}, **PAIRS)
    assert "data.columns.rejected=worse: rows.jsonl has no such column; it has prompt, chosen, rejected" in said


@pytest.mark.parametrize(
    ("columns", "changes", "said"),
    [
        (COLUMNS, {"format": "preference"}, "data.group_by_prompt=true would merge pairs"),
        ({**COLUMNS, "rejected": None}, {**PAIRS}, "data.columns.rejected=null but data.format=preference needs it"),
        (COLUMNS, {}, "data.columns.rejected=rejected is for data.format=preference, not alpaca"),
    ],
)
def test_settings_that_do_not_fit_are_refused(columns, changes, said):
    assert any(said in found for found in data_faults(settings("rows.jsonl", columns, **changes)))


def test_the_two_answers_are_options_unless_there_are_others(tmp_path):
    data = settings(jsonl(tmp_path, [ROW, {**ROW, "prompt": "r"}]), COLUMNS, **{**PAIRS, "fractions": (0.0, 0.5)})
    [row] = tokenize_splits(read_splits(data), data, byte_tokenizer()).splits["test"]
    assert row.row.options == ("yes", "maybe")
    assert len(row.options) == 2
    own = {**ROW, "options": ["maybe", "no", "yes"]}
    data = settings(
        jsonl(tmp_path, [own, {**own, "prompt": "r"}]),
        {**COLUMNS, "options": "options"},
        **{**PAIRS, "fractions": (0.0, 0.5)},
    )
    [row] = read_splits(data).splits["test"]
    assert row.options == ("maybe", "no", "yes")


def test_a_pair_that_was_cut_has_no_options(tmp_path):
    long = {**ROW, "rejected": "m" * 100}
    data = settings(
        jsonl(tmp_path, [long, {**long, "prompt": "r"}]),
        COLUMNS,
        **{**PAIRS, "fractions": (0.0, 0.5)},
        max_tokens=64,
        truncate=True,
    )
    found = tokenize_splits(read_splits(data), data, byte_tokenizer())
    [row] = found.splits["test"]
    assert (found.bad, row.options) == ((), ())
