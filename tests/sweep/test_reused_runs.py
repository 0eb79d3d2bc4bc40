"""Reused runs get the command's labels and are sent to its tracker once."""

import logging
from dataclasses import replace

import pytest

from harness.record import locks, store
from harness.record.files import write_jsonl
from harness.record.run_record import Training
from harness.sweep.reused_runs import label_and_send
from tests.support.sweeps import finish_record, make_cell
from tests.support.trackers import tracker
from tests.support.wandb_files import closed, items, offline_files


@pytest.fixture
def cell(tmp_path, weightless):
    store.say_once.cache_clear()
    made = make_cell(tmp_path / "runs", weightless, "lora.r=8", attempts=0)
    finish_record(
        made,
        predictions="predictions.jsonl",
        training=Training(curve=[{"step": 1, "loss": 2.0}], validation=[{"step": 1, "loss": 3.0}], best_step=1),
    )
    write_jsonl(made.folder / "predictions.jsonl", [{"prompt": "p", "reference": "r", "before": "b", "after": "a"}])
    return made


def reuse(cell, **options):
    cell = replace(cell, options=replace(cell.options, **options))
    label_and_send([(cell, cell.read_record())])
    return cell.read_record()


def test_note_and_tags_are_put_on_the_record_and_nothing_else_changes(cell):
    before = cell.read_record()
    after = reuse(cell, note="why", tags=("paper",))
    assert (after["note"], after["tags"]) == ("why", ["paper"])
    assert {**after, "note": None, "tags": []} == before
    assert reuse(cell, tags=("b",))["tags"] == ["paper", "b"]


def test_a_record_is_not_rewritten_for_nothing(cell):
    file = cell.folder / store.RECORD_NAME
    inode = file.stat().st_ino
    reuse(cell)
    assert file.stat().st_ino == inode


def test_a_reused_run_is_sent_once_with_curves_figures_and_predictions(cell, tmp_path, caplog):
    caplog.set_level(logging.INFO, "harness")
    wandb = tracker("wandb", tmp_path / "wandb")
    first = reuse(cell, tracker=wandb, sweep_name="second")
    (file,) = offline_files(tmp_path / "wandb")
    seen = closed(file)
    (head,) = [record.run for record in seen if record.HasField("run")]
    assert (head.run_id, head.display_name, head.run_group) == (first["tracker"]["id"], "lora r=8", "second")
    points = [items(record.history.item) for record in seen if record.HasField("history")]
    assert [float(point["train/loss"]) for point in points if "train/loss" in point] == [2.0]
    assert any("predictions/_type" in point for point in points)
    figures = {key: value for r in seen if r.HasField("summary") for key, value in items(r.summary.update).items()}
    assert float(figures["validation/loss"]) == 3.0
    assert "reused, and sent to wandb" in caplog.text
    assert reuse(cell, tracker=wandb, sweep_name="third") == first
    assert "already in wandb" in caplog.text
    assert len(offline_files(tmp_path / "wandb")) == 1
    other = tracker("wandb", tmp_path / "wandb")
    other.project = "another"
    moved = reuse(cell, tracker=other)
    assert moved["tracker"]["project"] == "another"
    assert f"tracked before by wandb as {first['tracker']['id']}" in moved["notes"]


def test_a_tracker_that_cannot_start_costs_no_result(cell, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    before = cell.read_record()
    assert reuse(cell, tracker=tracker("tensorboard", tmp_path / "file" / "x")) == before
    assert "its record and tracker stay as they are: tracker.dir=" in caplog.text


def test_a_record_that_another_process_replaces_is_left_to_it(cell):
    with locks.take_lock(cell.folder):
        assert reuse(cell, tags=("paper",))["tags"] == []
