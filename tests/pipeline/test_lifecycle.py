"""How a run ends: finished, failed or interrupted, in its record and in its tracker."""

from unittest import mock

import pytest
import torch

from harness.adapters import save_load
from harness.models import base
from harness.pipeline.cache import ProcessCache
from harness.pipeline.run import run as run_plan
from harness.record import store
from harness.runtime import threads
from harness.scoring import score as scoring_score
from harness.trackers.tensorboard import TensorBoardRun
from harness.training import train
from tests.support.runs import command, overrides, plan_of, records_of
from tests.support.wandb_files import closed, offline_files


def test_a_failure_after_training_is_recorded_and_leaves_no_scratch(run, tmp_path):
    with mock.patch.object(save_load, "save_adapter", side_effect=OSError(28, "No space left on device")):
        done, kept = run()
    assert done.code == 1
    assert (kept["status"], kept["adapter"]) == ("failed", None)
    assert "disk is full" in kept["error"]["hint"]
    assert not (tmp_path / "runs" / kept["fingerprint"] / "scratch").exists()
    again, kept = run()
    assert (again.code, kept["status"], kept["attempt"]) == (0, "finished", 2)


def test_a_run_that_changes_the_base_and_then_fails_does_not_pass_it_on(random_qwen2, rows, tmp_path):
    plan, options = plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), "peft=ia3")
    cache = ProcessCache()
    original = train.train

    def vandal(*args):
        with torch.no_grad():
            cache.shared.base.model.lm_head.weight[0] += 1.0
        original(*args)
        raise RuntimeError("out of luck")

    with mock.patch.object(train, "train", vandal), pytest.raises(RuntimeError, match="out of luck"):
        run_plan(plan, options, "", cache=cache)
    kept = store.read_record(options.runs_dir, plan.fingerprint)
    assert kept["status"] == "failed"
    assert any("the next run loads it again" in note for note in kept["notes"])
    assert cache.shared is None


def test_a_stop_from_outside_is_not_a_failure(run):
    with mock.patch.object(scoring_score, "score", side_effect=KeyboardInterrupt):
        done, kept = run("scoring.generation.max_new_tokens=2")
    assert done.code == 130
    assert kept["status"] == "interrupted"


def test_a_resumed_run_keeps_its_threads_unless_told_otherwise(random_qwen2, rows, tmp_path, monkeypatch):
    """Another number would give other last digits within one run."""
    monkeypatch.delenv(threads.GIVEN, raising=False)
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "trainer.threads=null", "trainer.max_steps=3"]
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1] if used else 8)

    def go(free: int, *more: str):
        monkeypatch.setattr(threads, "choose", lambda *_: threads.Threads(free, "measured"))
        command(*words, *more)
        [kept] = records_of(tmp_path / "runs").values()
        return kept

    with mock.patch.object(scoring_score, "score", side_effect=KeyboardInterrupt):
        assert (go(3, "trainer.checkpoint_steps=1")["device"]["threads"], used) == (3, [3])
    with mock.patch.object(base, "load_base", side_effect=KeyboardInterrupt):
        go(1)  # stopped before it had set its own
    assert go(1)["device"]["threads"] == 3
    assert go(1, "rerun=true")["device"]["threads"] == 1
    assert go(4, "rerun=true", "trainer.threads=2")["inferred"]["threads_rule"] == "trainer.threads"
    assert used == [3, 3, 3, 1, 2]


def test_a_tracker_that_refuses_the_result_does_not_cost_it(run):
    with mock.patch.object(TensorBoardRun, "summary", side_effect=OSError(28, "No space left on device")):
        done, kept = run("tracker=tensorboard")
    assert (done.code, kept["status"]) == (0, "finished")
    assert "the tracker could not store the result (OSError: [Errno 28]" in done.err


def test_note_tags_and_sweep_are_kept_and_a_single_run_says_what_may_come_next(run, tmp_path):
    done, kept = run("note=why, and {how}", "tags=[paper,a]", "sweep.name=mine")
    assert (kept["note"], kept["tags"], kept["sweep"]) == ("why, and {how}", ["paper", "a"], "mine")
    short = kept["fingerprint"][:6]
    assert f"{kept['fingerprint']}: record.json, adapter/, predictions.jsonl" in done.err
    assert f"next: python -m harness stage=generate run={short} prompt='...' runs_dir={tmp_path}" in done.err
    again, relabeled = run("tags=[b]")
    assert (again.code, relabeled["tags"]) == (0, ["paper", "a", "b"])
    assert {**relabeled, "tags": kept["tags"]} == kept  # reused, not run again


@pytest.mark.slow
def test_wandb_gets_one_run_per_plan_with_its_own_name_group_tags_and_state(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "tracker=wandb"]
    words += ["peft=lora,ia3", "trainer.learning_rate=1e-3,1e30", "trainer.max_steps=1", "sweep.name=s1"]
    done = command("-m", *words)
    assert done.code == 1
    kept = records_of(tmp_path / "runs")
    assert {record["status"] for record in kept.values()} == {"failed", "finished"}
    assert len(kept) == 4
    seen = {}
    for file in offline_files(tmp_path / "runs" / "tracker"):
        closing = closed(file)
        [opening] = [record.run for record in closing if record.HasField("run")]
        [end] = [record.exit for record in closing if record.HasField("exit")]
        seen[opening.run_id] = (opening, end.exit_code)
    assert set(seen) == {record["tracker"]["id"] for record in kept.values()}
    for record in kept.values():
        opening, code = seen[record["tracker"]["id"]]
        assert opening.run_group == "s1"
        assert list(opening.tags) == [record["method"], "random"]
        assert opening.display_name.startswith(f"{record['method']} ")
        assert code == (0 if record["status"] == "finished" else 1)


def test_tensorboard_gets_a_folder_per_plan(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "tracker=tensorboard", "trainer.max_steps=1"]
    assert command("-m", *words, "peft=ia3", "seed=0,1", "lora.r=2,4").code == 0
    kept = records_of(tmp_path / "runs")
    folders = {path.parent.name for path in (tmp_path / "runs" / "tracker").glob("*/events*")}
    assert folders == {record["tracker"]["id"] for record in kept.values()}
    assert len(folders) == 2
