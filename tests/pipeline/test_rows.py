"""A plan's data as tokens: what it counts, what it notes, and what it refuses."""

from dataclasses import replace

import pytest

from harness.errors import DataFault
from harness.pipeline.rows import prepare_rows
from tests.support.runs import loaded, overrides, plan_of, write_rows


@pytest.fixture
def prepare(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows")

    def go(*words):
        plan, _ = plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)
        return prepare_rows(plan, loaded(random_qwen2))

    return go


def test_rows_are_counted_by_split_and_cut_ones_are_noted(prepare):
    whole = prepare()
    assert whole.rows == {"train": 24, "validation": 6, "test": 6, "bad": 0}
    longest = max(len(row.input_ids) for row in whole.splits["train"])
    cut = prepare(f"data.max_tokens={longest - 1}", "data.truncate=true")
    assert [note for note in cut.notes if f"were cut to data.max_tokens={longest - 1}" in note]


def test_unusable_rows_are_skipped_and_noted_if_the_plan_says_so(prepare, tmp_path):
    with (tmp_path / "rows" / "train.jsonl").open("a") as file:
        file.write('{"instruction": "Color?", "input": "sky", "output": "blue<|im_end|>"}\n')
        file.write('{"instruction": "Color?", "input": "grass", "output": 5}\n')  # refused before it is tokenized
    found = prepare("data.on_bad_row=skip")
    assert (found.refused, found.rows["bad"]) == (2, 2)
    assert "2 unusable rows were skipped (data.on_bad_row=skip)" in found.notes


def test_a_file_of_held_out_text_that_was_removed_meanwhile_is_refused(random_qwen2, tmp_path):
    plan, _ = plan_of(*overrides(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs"))
    plan = replace(plan, scoring=replace(plan.scoring, forgetting="absent.jsonl"))
    with pytest.raises(DataFault, match=r"scoring\.forgetting='absent\.jsonl': no such file"):
        prepare_rows(plan, loaded(random_qwen2))
