"""Sweeps: each plan once, each cell shown, each failure told, nothing run where something is wrong."""

import csv
import json
import weakref
from concurrent.futures import Future
from dataclasses import replace
from unittest import mock

import pytest
import torch

from harness.errors import RunFault
from harness.models import base
from harness.models.base import load_base
from harness.record import provenance
from harness.sweep import worklist
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import Launcher, Worker, outcomes_of
from harness.trackers import base as trackers
from harness.trackers.base import start_tracker
from harness.training import train
from tests.support.runs import command, overrides, records_of, write_rows

GRID = ("peft=lora,ia3", "lora.r=4,8,16")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def sweep(random_qwen2, rows, tmp_path):
    return lambda *words: command("-m", *overrides(random_qwen2, rows, tmp_path / "runs"), *words)


def tables(runs_dir):
    return [list(csv.DictReader(file.open())) for file in sorted((runs_dir / "sweeps").glob("*/table.csv"))]


def test_the_first_grid_is_four_runs_and_six_rows_and_is_done_once(sweep, tmp_path):
    loading = mock.patch.object(base, "load_base", side_effect=load_base)
    training = mock.patch.object(train, "train", side_effect=train)
    with loading as load, training as trained:
        first = sweep(*GRID)
        assert (first.code, load.call_count, trained.call_count) == (0, 1, 4), first.err
        assert "6 cells, 4 runs, 0 of them finished earlier, 2 cells share runs of others, 4 to run (time" in first.err
        assert "[4/4]" in first.err
        kept = records_of(tmp_path / "runs")
        assert sorted(record["method"] for record in kept.values()) == ["ia3", "lora", "lora", "lora"]
        [table] = tables(tmp_path / "runs")
        assert [row["shares_row"] for row in table] == ["", "", "", "", "4", "4"]
        assert {row["state"] for row in table} == {"finished"}
        assert len({row["loss"] for row in table[3:]}) == 1
        assert "5 = 4" in first.out
        assert "no replicate" in first.out

        again = sweep(*GRID)
        assert (again.code, trained.call_count) == (0, 4)
        assert "4 of them finished earlier" in again.err
        assert again.err.count("rerun=true does it again") == 4
        assert "reused" in again.out

        anew = sweep("peft=ia3", "lora.r=4,8", "rerun=true")
        assert (anew.code, trained.call_count) == (0, 5)
        assert "replaces attempt 1" in anew.err
    assert {record["attempt"] for record in records_of(tmp_path / "runs").values()} == {1, 2}


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
    with mock.patch.object(train, "train", side_effect=train) as trained:
        assert sweep("trainer.learning_rate=1e-3,1e30,2e-3", "lora.r=2").code == 1
    assert trained.call_count == 1  # only what failed is tried again


def test_where_a_cell_is_wrong_nothing_runs_and_each_fault_is_listed_once(sweep, tmp_path):
    done = sweep("peft=lora,ia3", "lora.r=4,-1", "trainer.batch_size=0")
    assert done.code == 2
    faults = [line.removeprefix("error: ").partition("=")[0] for line in done.err.splitlines()]
    assert sorted(faults) == ["lora.r", "trainer.batch_size"]
    assert records_of(tmp_path / "runs") == {}


def test_a_method_that_does_not_fit_the_model_is_found_before_anything_runs(sweep, tmp_path):
    done = sweep("peft=ia3,lora", "lora.target_modules=[no_such_layer]")
    assert done.code == 2
    assert "no_such_layer" in done.err
    assert records_of(tmp_path / "runs") == {}


def test_a_plan_is_printed_and_nothing_is_written(sweep, tmp_path):
    done = sweep("stage=plan", *GRID)
    assert done.code == 0
    assert "6 cells, 4 runs" in done.out
    assert not (tmp_path / "runs").exists()


def test_a_report_tabulates_what_is_there_and_says_where_nothing_is(sweep, tmp_path):
    empty = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert empty.code == 2
    assert "holds no record" in empty.err
    sweep("peft=ia3,lora", "lora.r=2")
    done = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert done.code == 0
    assert {line.split()[1] for line in done.out.splitlines() if line.strip()[:1] in "12"} >= {"ia3", "lora"}
    assert (tmp_path / "runs" / "table.csv").exists()


@pytest.mark.parametrize("stage", ["generate", "report"])
def test_stages_of_single_runs_take_no_sweep(sweep, tmp_path, stage):
    done = sweep(f"stage={stage}", "seed=0,1", "run=abc", "prompt=x")
    assert done.code == 2
    assert f"stage={stage} takes no sweep; leave out -m" in done.err
    assert records_of(tmp_path / "runs") == {}


def test_batches_of_a_grid_are_refused_because_later_cells_would_be_unchecked(sweep):
    done = sweep("seed=0,1", "hydra.sweeper.max_batch_size=1")
    assert done.code == 2
    assert "hydra.sweeper.max_batch_size=1" in done.err


# --- failures ---------------------------------------------------------------------------------------------


class Broken:
    """Training that fails in three ways, by seed, until it is mended."""

    def __init__(self) -> None:
        self.real, self.count, self.mended = train, 0, False

    def __call__(self, model, plan, *arguments, **settings):
        self.count += 1
        if plan.seed == 2 and not self.mended:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if plan.seed == 5 and not self.mended:
            raise OSError(28, "No space left on device", "best.safetensors")
        if plan.seed == 7 and not self.mended:
            plan = replace(plan, learning_rate=1e30)  # a real loss that is not finite
        return self.real(model, plan, *arguments, **settings)


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


def test_ten_runs_of_which_three_fail_are_seven_results_and_three_reasons(sweep, tmp_path, monkeypatch):
    training = Broken()
    monkeypatch.setattr(train, "train", training)
    grid = ("seed=range(0,10)", "lora.r=2", "scoring.metrics=[]")
    done = sweep(*grid)
    assert (done.code, training.count) == (1, 10)
    [table] = tables(tmp_path / "runs")
    assert [row["state"] for row in table].count("finished") == 7
    reasons = {int(row["row"]) - 1: (row["error"], row["hint"]) for row in table if row["state"] == "failed"}
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
    assert "1 of them finished earlier, 3 failed earlier and left so, 0 to run" in left.err
    assert left.out.count("failed earlier") >= 3

    training.mended = True
    mended = sweep(*part)
    assert (mended.code, training.count) == (0, 13)
    assert "3 to run (about " in mended.err  # there are measured runs to go by
    assert {kept["status"] for kept in records_of(tmp_path / "runs").values()} == {"finished"}


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


def test_negative_limit_of_failures_is_refused(sweep):
    done = sweep("lora.r=2,4", "sweep.max_failures=-1")
    assert done.code == 2
    assert "sweep.max_failures=-1 is too small" in done.err


class Slots(Launcher):
    """Two slots in this thread; a job's plan fails where its name says so."""

    def check(self):
        """Nothing to look at."""

    def run(self, jobs, folder):
        return outcomes_of([Slot(), Slot()], jobs, 0.0)

    def close(self):
        """Nothing to end."""


class Slot(Worker):
    def submit(self, job):
        future = Future()
        future.set_result(worker.run_job(job))
        return future

    def restart(self): ...

    def close(self, busy=False): ...


def test_limit_of_failures_reaches_the_workers(tmp_path, weightless, monkeypatch):
    from harness.sweep.cells import Cell
    from hydra_plugins.harness_launcher import PlanLauncher
    from tests.support.runs import plan_of

    began = []

    def fails(job):
        began.append(job.fingerprint)
        raise RunFault("no")

    monkeypatch.setattr(worker, "_run", fails)
    launcher = PlanLauncher(Slots())
    source = worker.ConfigSource("", "config", (), str(tmp_path))
    code = provenance.code_version()
    launcher._job = lambda cell, folder, stop: worker.Job(
        cell.plan.fingerprint, cell.name, "m", (), "s", source, code, str(folder), cell.tries, str(stop)
    )
    todo = []
    for r in range(1, 7):
        made, options = plan_of(f"model.path={weightless}", f"lora.r={r}")
        todo.append(Cell((f"lora.r={r}",), made, replace(options, runs_dir=tmp_path), tries=0))
    track = worklist.Worklist(tmp_path, 1)
    results = list(track.follow(todo, launcher._elsewhere, tmp_path / "sweeps" / "s"))
    assert track.over
    assert len(results) == len(began) <= 4  # two had failed; those that had begun beside them ended


# --- every way to write a grid ------------------------------------------------------------------------------


def test_every_way_to_write_a_grid_comes_to_the_same_runs(sweep, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {lora.r: '2,4'}}}\n"
    )
    (tmp_path / "conf" / "peft").mkdir()
    (tmp_path / "conf" / "peft" / "lorax.yaml").write_text("method: lora\n")
    sweep("lora.r=2,4")
    with mock.patch.object(train, "train", side_effect=train) as trained:
        for words in (
            ("lora.r=range(2,5,2)",),
            ("lora.r=choice(4,2)",),
            ("peft=glob(lorax)", "lora.r=2,4", f"--config-dir={tmp_path / 'conf'}"),
            ("experiment=mine", f"--config-dir={tmp_path / 'conf'}"),
        ):
            done = sweep(*words)
            assert (done.code, trained.call_count) == (0, 0), (words, done.err)
            assert "2 cells, 2 runs, 2 of them finished earlier" in done.err


def test_every_run_of_a_sweep_is_tracked_in_one_group(sweep, tmp_path):
    with mock.patch.object(trackers, "start_tracker", side_effect=start_tracker) as started:
        sweep("lora.r=2,4")
        sweep("lora.r=8", "sweep.name=mine")
    groups = [call.kwargs["group"] for call in started.call_args_list]
    assert len(groups) == 3
    assert groups[0] == groups[1] != "single"
    assert groups[2] == "mine"
    lists = [json.loads(file.read_text()) for file in (tmp_path / "runs" / "sweeps").glob("*/sweep.json")]
    assert {content["name"] for content in lists} == {groups[0], "mine"}
