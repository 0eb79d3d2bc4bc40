"""Sweeps: each plan runs once, each cell is shown, each failure is reported, nothing runs if a cell is wrong."""

import csv
import json
import time
import weakref
from dataclasses import replace
from unittest import mock

import pytest
import torch

from harness.models import base
from harness.models.base import load_base
from harness.pipeline import lifecycle
from harness.record import provenance
from harness.trackers.base import start_tracker
from harness.training import train
from harness.training.trainer import HarnessTrainer
from tests.support.runs import command, overrides, records_of, write_rows

GRID = ("peft=lora,ia3", "lora.r=4,8,16")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def sweep(random_qwen2, rows, tmp_path):
    return lambda *words: command("-m", *overrides(random_qwen2, rows, tmp_path / "runs"), *words)


def tables(runs_dir):
    return [list(csv.DictReader(file.open())) for file in sorted((runs_dir / "sweeps").glob("*/runs.csv"))]


@pytest.mark.slow
def test_the_first_grid_is_four_runs_and_six_rows_and_is_done_once(sweep, tmp_path):
    loading = mock.patch.object(base, "load_base", side_effect=load_base)
    training = mock.patch.object(train, "train", side_effect=train.train)
    with loading as load, training as trained:
        first = sweep(*GRID)
        assert (first.code, load.call_count, trained.call_count) == (0, 1, 4), first.err
        assert "6 cells, 4 runs, 0 of them finished earlier, 2 cells share runs of others, 4 to run (time" in first.err
        assert "[4/4]" in first.err
        records = records_of(tmp_path / "runs")
        assert sorted(record["method"] for record in records.values()) == ["ia3", "lora", "lora", "lora"]
        [table] = tables(tmp_path / "runs")
        assert [len(row["cells"].split(" | ")) for row in table] == [1, 1, 1, 3]
        assert {row["state"] for row in table} == {"finished"}
        assert "5 = 4" in first.out
        assert "not a replicate" in first.out

        again = sweep(*GRID)
        assert (again.code, trained.call_count) == (0, 4)
        assert "4 of them finished earlier" in again.err
        assert again.err.count("rerun=true runs it again") == 4
        assert "reused" in again.out

        anew = sweep("peft=ia3", "lora.r=4,8", "rerun=true")
        assert (anew.code, trained.call_count) == (0, 5)
        assert "replaces attempt 1" in anew.err
    assert {record["attempt"] for record in records_of(tmp_path / "runs").values()} == {1, 2}


@pytest.mark.slow
def test_a_failing_run_stops_no_other_and_is_told_with_a_hint(sweep, tmp_path):
    done = sweep("trainer.learning_rate=1e-3,1e30,2e-3", "lora.r=2")
    assert done.code == 1
    states = [record["status"] for record in records_of(tmp_path / "runs").values()]
    assert sorted(states) == ["failed", "finished", "finished"]
    [table] = tables(tmp_path / "runs")
    assert [row["state"] for row in table] == ["finished", "failed", "finished"]
    assert "the loss became" in table[1]["error"]
    assert "lower trainer.learning_rate" in table[1]["hint"]
    assert "row 2 failed" in done.out
    assert "1 of 3 runs failed" in done.err
    assert "Traceback" not in done.err
    with mock.patch.object(train, "train", side_effect=train.train) as trained:
        assert sweep("trainer.learning_rate=1e-3,1e30,2e-3", "lora.r=2").code == 1
    assert trained.call_count == 1  # only what failed is retried


# --- failures ---------------------------------------------------------------------------------------------


class Broken:
    """Training that fails in three ways, by seed, until it is fixed."""

    def __init__(self) -> None:
        self.real, self.count, self.fixed = train.train, 0, False

    def __call__(self, model, plan, *arguments, **settings):
        self.count += 1
        if plan.seed == 2 and not self.fixed:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if plan.seed == 5 and not self.fixed:
            raise OSError(28, "No space left on device", "best.safetensors")
        if plan.seed == 7 and not self.fixed:
            plan = replace(plan, learning_rate=1e30)  # a real loss that is not finite
        return self.real(model, plan, *arguments, **settings)


@pytest.mark.slow
def test_failed_run_leaves_its_memory_to_the_next(sweep, monkeypatch):
    models_seen = []

    def fails(model, *arguments, **settings):
        models_seen.append((weakref.ref(model), [earlier() is None for earlier, _ in models_seen]))
        try:
            raise ValueError("the reason behind it")
        except ValueError as reason:
            raise torch.OutOfMemoryError("CUDA out of memory") from reason

    monkeypatch.setattr(train, "train", fails)
    assert sweep("seed=range(0,3)", "lora.r=2", "scoring.metrics=[]").code == 1
    assert [gone for _, gone in models_seen] == [[], [True], [True, True]]


@pytest.mark.slow
def test_ten_runs_of_which_three_fail_are_seven_results_and_three_reasons(sweep, tmp_path, monkeypatch):
    training = Broken()
    monkeypatch.setattr(train, "train", training)
    grid = ("seed=range(0,10)", "lora.r=2", "scoring.metrics=[]")
    done = sweep(*grid)
    assert (done.code, training.count) == (1, 10)
    [table] = tables(tmp_path / "runs")
    assert [row["state"] for row in table].count("finished") == 7
    reasons = {int(row["seed"]): (row["error"], row["hint"]) for row in table if row["state"] == "failed"}
    assert set(reasons) == {2, 5, 7}
    for seed, error, hint in ((2, "CUDA out of memory", "batch_size"), (5, "No space left", "free space"),
                              (7, "the loss became", "learning_rate")):  # fmt: skip
        assert error in reasons[seed][0]
        assert hint in reasons[seed][1]
        assert f"row {seed + 1} failed: " in done.out
    assert "3 of 10 runs failed" in done.err

    part = ("seed=1,2,5,7", *grid[1:])  # composing the others again would only take time
    left = sweep(*part, "sweep.retry=none")
    assert (left.code, training.count) == (1, 10)
    assert "1 of them finished earlier, 3 failed earlier (not retried: sweep.retry=none), 0 to run" in left.err
    assert left.out.count("failed earlier") >= 3

    training.fixed = True
    fixed = sweep(*part)
    assert (fixed.code, training.count) == (0, 13)
    assert "3 to run (about " in fixed.err  # there are measured runs to go by
    assert {record["status"] for record in records_of(tmp_path / "runs").values()} == {"finished"}


@pytest.mark.slow
def test_after_too_many_failures_no_further_run_starts(sweep, tmp_path):
    grid = ("trainer.learning_rate=1e30,1e29,1e-3", "lora.r=2")
    done = sweep(*grid, "sweep.max_failures=0")
    assert done.code == 1
    assert "more runs failed (1) than sweep.max_failures=0: 2 were not started" in done.err
    [table] = tables(tmp_path / "runs")
    assert [row["state"] for row in table] == ["failed", "not started", "not started"]
    assert sweep(*grid, "sweep.max_failures=2").code == 1
    [table] = tables(tmp_path / "runs")
    assert [row["state"] for row in table] == ["failed", "failed", "finished"]
    again = sweep(*grid, "sweep.max_failures=0")
    assert again.code == 1
    [table] = tables(tmp_path / "runs")
    assert [row["state"] for row in table] == ["failed", "not started", "finished"]  # its old failure is not of now


# --- every way to write a grid ------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_way_to_write_a_grid_comes_to_the_same_runs(sweep, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {lora.r: '2,4'}}}\n"
    )
    (tmp_path / "conf" / "peft").mkdir()
    (tmp_path / "conf" / "peft" / "lorax.yaml").write_text("method: lora\n")
    sweep("lora.r=2,4")
    with mock.patch.object(train, "train", side_effect=train.train) as trained:
        for words in (
            ("lora.r=range(2,5,2)",),
            ("lora.r=choice(4,2)",),
            ("peft=glob(lorax)", "lora.r=2,4", f"--config-dir={tmp_path / 'conf'}"),
            ("experiment=mine", f"--config-dir={tmp_path / 'conf'}"),
        ):
            done = sweep(*words)
            assert (done.code, trained.call_count) == (0, 0), (words, done.err)
            assert "2 cells, 2 runs, 2 of them finished earlier" in done.err


@pytest.mark.slow
def test_every_run_of_a_sweep_is_tracked_in_one_group(sweep, tmp_path):
    with mock.patch.object(lifecycle, "start_tracker", side_effect=start_tracker) as started:
        sweep("lora.r=2,4")
        sweep("lora.r=8", "sweep.name=mine")
    groups = [call.kwargs["group"] for call in started.call_args_list]
    assert len(groups) == 3
    assert groups[0] == groups[1] != "single"
    assert groups[2] == "mine"
    lists = [json.loads(file.read_text()) for file in (tmp_path / "runs" / "sweeps").glob("*/sweep.json")]
    assert {content["name"] for content in lists} == {groups[0], "mine"}


# --- records of other code --------------------------------------------------------------------------------


@pytest.mark.slow
def test_records_of_other_code_are_run_again_or_reused_and_marked(sweep, tmp_path, monkeypatch):
    assert sweep("lora.r=2,4").code == 0
    made_by = provenance.code_version()
    monkeypatch.setattr(provenance, "code_version", lambda: "0123456789abcdef")
    with mock.patch.object(train, "train", side_effect=train.train) as trained:
        reused = sweep("lora.r=2,4,8", "sweep.reuse=any")
        assert (reused.code, trained.call_count) == (0, 1), reused.err
        assert "2 of them finished earlier" in reused.err
        assert reused.err.count(f"by code {made_by}, now 0123456789abcdef (sweep.reuse=any)") == 2
        assert reused.out.count("reused (other code)") == 2
        assert f"rows 1, 2: made by code {made_by}, not by the present code" in reused.out
        table = next(table for table in tables(tmp_path / "runs") if len(table) == 3)
        assert [row["code"] == made_by for row in table] == [True, True, False]
        again = sweep("lora.r=2,4,8")
        assert (again.code, trained.call_count) == (0, 3)
        assert "other code" not in again.out


@pytest.mark.slow
def test_single_run_reuses_a_record_of_other_code_only_if_asked(random_qwen2, rows, tmp_path, monkeypatch):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "lora.r=2"]
    assert command(*words).code == 0
    monkeypatch.setattr(provenance, "code_version", lambda: "0123456789abcdef")
    with mock.patch.object(train, "train", side_effect=train.train) as trained:
        reused = command(*words, "sweep.reuse=any")
        assert (reused.code, trained.call_count) == (0, 0), reused.err
        assert "(sweep.reuse=any)" in reused.err
        assert "reused (other code)" in reused.out
        assert command(*words).code == 0
        assert trained.call_count == 1


@pytest.mark.slow
def test_a_sweep_ends_in_time_and_the_same_command_goes_on(sweep, tmp_path):
    grid = ("lora.r=2,4,8", "scoring.metrics=[]", "trainer.max_steps=6", "trainer.evaluations=2")
    real = HarnessTrainer.training_step

    def slow(self, *arguments, **settings):
        if self.state.global_step == 2:
            time.sleep(8)  # longer than the time of the sweep, of which a busy machine spends a part before
        return real(self, *arguments, **settings)

    with mock.patch.object(HarnessTrainer, "training_step", slow):
        done = sweep(*grid, "sweep.max_hours=0.002")
    assert done.code == 1, done.err
    assert "sweep.max_hours=0.002 reached: 3 of 3 runs are left (" in done.err
    assert "run the same command again to resume" in done.err
    assert [record["status"] for record in records_of(tmp_path / "runs").values()] == ["interrupted"]
    assert "interrupted" in done.out
    assert done.out.count("not started") == 2
    again = sweep(*grid, "sweep.max_hours=1")
    assert again.code == 0, again.err
    assert "resuming from the checkpoint at optimizer step 3 of 6" in again.err
    assert [record["status"] for record in records_of(tmp_path / "runs").values()] == ["finished"] * 3
