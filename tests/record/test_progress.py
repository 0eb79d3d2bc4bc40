"""The progress file: what a run writes is what other processes read, and no fault of it fails a run."""

import math

import pytest

from harness.record import progress
from harness.record.progress import ProgressWriter, read_progress


def test_what_is_written_is_read_and_the_end_removes_it(tmp_path):
    writer = ProgressWriter(tmp_path)
    writer.enter("loading")
    assert (read_progress(tmp_path).state, read_progress(tmp_path).step) == ("loading", None)
    writer.enter("training")
    writer.begin(0, 10)
    assert not writer.due()
    writer.step(5, 2.5, 100.0)
    seen = read_progress(tmp_path)
    assert (seen.state, seen.step, seen.steps, seen.loss, seen.tokens_per_s) == ("training", 5, 10, 2.5, 100.0)
    assert seen.left_s >= 0
    assert [path.name for path in tmp_path.iterdir()] == [progress.NAME]
    writer.end()
    assert read_progress(tmp_path) is None


def test_the_time_left_counts_from_where_a_resumed_training_began(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    writer = ProgressWriter(tmp_path)
    writer.begin(40, 100)
    now = 130.0
    writer.step(70, 1.0, 1.0)
    assert read_progress(tmp_path).left_s == pytest.approx(30.0)


def test_scoring_counts_the_rows_of_each_pass(tmp_path, monkeypatch):
    writer = ProgressWriter(tmp_path)
    writer.enter("scoring after")
    monkeypatch.setattr(writer, "due", lambda: True)
    for unit in ("loss", "answer"):
        for rows in (8, 16):
            writer.scored(unit, rows, 24)
        seen = read_progress(tmp_path)
        assert (seen.state, seen.unit, seen.step, seen.steps) == ("scoring after", unit, 16, 24)
        assert seen.left_s is not None


def test_progress_reads_as_a_line():
    known = progress.Progress("training", 120, 300, 0.4123, 9812.0, 62.0, 0.0, {})
    assert known.in_words() == "step 120/300  loss 0.412  9.8k tok/s  1:02 left"
    answers = progress.Progress("scoring after", 40, 216, None, None, 12.0, 0.0, {}, "answer")
    assert answers.in_words() == "scoring after  answer 40/216  0:12 left"
    assert progress.Progress("loading", None, None, None, None, None, 0.0, {}).in_words() == "loading"


def test_a_loss_that_is_not_finite_is_unknown(tmp_path):
    writer = ProgressWriter(tmp_path)
    writer.begin(0, 10)
    writer.step(1, math.nan, 1.0)
    assert read_progress(tmp_path).loss is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": "training"}'])
def test_a_file_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / progress.NAME).write_text(content)
    assert read_progress(tmp_path) is None


def test_a_folder_that_cannot_be_written_fails_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    writer = ProgressWriter(tmp_path / "file")
    writer.enter("loading")
    writer.end()


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    writer = ProgressWriter(tmp_path)
    writer.enter("loading")
    writer.end()
    assert list(tmp_path.iterdir()) == []
