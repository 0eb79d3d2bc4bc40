"""sweep.prune=halving: what is trained how far, what is pruned, and how it resumes."""

import csv
import json
from functools import partial
from unittest import mock

import pytest

from harness.errors import Paused, RunFault
from harness.record import locks, store
from harness.record.run_record import Training
from harness.sweep import dispatch, execute
from harness.sweep.outcome import Outcome, Status, outcome_of_error
from harness.sweep.rounds import was_pruned
from harness.sweep.worklist import Worklist
from harness.training import train, trainer
from tests.support.runs import command, overrides, records_of, write_rows
from tests.support.stored_records import fail, finish, started
from tests.support.sweeps import make_cell

HALVING = ("trainer.evaluations=8", "trainer.max_steps=80")


class Stand:
    """Stands for training: losses are given, and a run writes what a real one writes when it pauses or ends.

    Attributes:
        ran: name and last evaluation of each stretch, in order.
    """

    def __init__(self, runs_dir, curves):
        self.runs_dir, self.curves = runs_dir, curves
        self.ran: list[tuple[str, int]] = []
        self.failing: set[str] = set()
        self.stop_after = 1000

    def __call__(self, cell):
        name = cell.name.split()[0].partition("=")[2]
        if len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        goal = cell.options.pause_after or 8
        self.ran.append((name, goal))
        record = started(cell)
        if name in self.failing:
            fail(self.runs_dir, record, RunFault("no"))
            return Outcome(cell.plan.fingerprint, Status.failed, "no")
        points = [{"step": 10 * (n + 1), "loss": self.curves[name][n]} for n in range(goal)]
        record.training = Training(optimizer_steps=10 * goal, validation=points, best_step=None)
        record.inferred["optimizer_steps"] = 80
        if goal < 8:
            error = Paused("paused")
            fail(self.runs_dir, record, error)
            return outcome_of_error(cell.plan.fingerprint, error, 1.0)
        return Outcome(cell.plan.fingerprint, Status.finished, record=finish(self.runs_dir, record))


def falling(last: float) -> list[float]:
    return [last + 8 - n for n in range(8)]


@pytest.fixture
def grid(tmp_path, weightless):
    """Four ranks of LoRA, the higher the better, and a method of one cell."""

    def cells(*words, ranks=(1, 2, 3, 4), prune="halving", **options):
        more = (*HALVING, f"sweep.prune={prune}", *words)
        return [make_cell(tmp_path, weightless, f"lora.r={r}", *more, **options) for r in ranks]

    return cells


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path, {str(r): falling(8.0 - r) for r in range(1, 9)})


def run(cells, stand, tmp_path):
    worklist = Worklist.of(cells[0].options)
    outcomes, _ = execute.run_cells(cells, partial(dispatch.run_here, stand), tmp_path, worklist)
    return {cell.name.split()[0].partition("=")[2]: outcomes.get(cell.plan.fingerprint) for cell in cells}


@pytest.fixture(autouse=True)
def no_checks(monkeypatch):
    monkeypatch.setattr(execute, "check_data", lambda cells: None)
    monkeypatch.setattr(execute, "check_models", lambda cells: None)


def statuses(outcomes):
    return {name: outcome and outcome.status.value for name, outcome in outcomes.items()}


def test_losers_end_at_their_rung_and_the_best_goes_to_its_end(grid, stand, tmp_path):
    cells = grid()
    outcomes = run(cells, stand, tmp_path)
    assert stand.ran == [("1", 1), ("2", 1), ("3", 1), ("4", 1), ("3", 2), ("4", 2), ("4", 8)]
    assert statuses(outcomes) == {"1": "pruned", "2": "pruned", "3": "pruned", "4": "finished"}
    record = cells[0].read_record()
    assert store.schema_faults(record) == []
    assert record["status"] == "pruned"
    assert record["error"] is None
    assert record["pruned"] == {
        "evaluation": 1, "of": 8, "step": 10, "steps": 80, "loss": 15.0, "limit": pytest.approx(13.13), "rank": 4,
        "compared": 4, "kept": 2, "rule": {"keep": 0.5, "first": 0.125, "margin": 0.01},
    }  # fmt: skip
    assert "validation loss 15 at evaluation 1 of 8, rank 4; 2 of 4 configurations continued, up to 13.13" in str(
        outcomes
    )


def test_the_same_command_trains_nothing_more(grid, stand, tmp_path, caplog):
    run(grid(), stand, tmp_path)
    stand.ran.clear()
    with caplog.at_level("INFO", logger="harness"):
        again = run(grid(), stand, tmp_path)
    assert stand.ran == []
    assert statuses(again) == {"1": "pruned", "2": "pruned", "3": "pruned", "4": "finished"}
    assert "4 runs, 1 of them finished earlier, 3 pruned earlier, 0 to run" in caplog.text


def test_without_pruning_the_pruned_are_trained(grid, stand, tmp_path):
    run(grid(), stand, tmp_path)
    stand.ran.clear()
    plain = grid(prune="none")
    assert [was_pruned(cell) for cell in plain] == [False] * 4
    outcomes = run(plain, stand, tmp_path)
    assert stand.ran == [("1", 8), ("2", 8), ("3", 8)]
    assert set(statuses(outcomes).values()) == {"finished"}
    assert "pruned" not in plain[0].read_record()


@pytest.mark.parametrize("stop", range(1, 7))
def test_a_race_that_was_stopped_anywhere_ends_as_if_it_had_not_been(grid, stand, tmp_path, stop):
    stand.stop_after = stop
    with pytest.raises(KeyboardInterrupt):
        run(grid(), stand, tmp_path)
    stand.stop_after = 1000
    run(grid(), stand, tmp_path)
    assert stand.ran == [("1", 1), ("2", 1), ("3", 1), ("4", 1), ("3", 2), ("4", 2), ("4", 8)]


def test_methods_do_not_race_each_other(grid, stand, tmp_path, weightless):
    other = make_cell(tmp_path, weightless, "lora.r=1", "peft.method=loha", *HALVING, "sweep.prune=halving", "loha.r=2")
    outcomes = execute.run_cells(
        [*grid(ranks=(3, 4)), other], partial(dispatch.run_here, stand), tmp_path, Worklist.of(other.options)
    )[0]
    assert outcomes[other.plan.fingerprint].status is Status.finished
    assert stand.ran == [("3", 1), ("4", 1), ("1", 8), ("4", 8)]


def test_seeds_of_a_configuration_stay_together(grid, stand, tmp_path):
    cells = [cell for seed in (0, 1) for cell in grid(f"seed={seed}", ranks=(1, 4))]
    outcomes = execute.run_cells(cells, partial(dispatch.run_here, stand), tmp_path, Worklist.of(cells[0].options))[0]
    states = [outcomes[cell.plan.fingerprint].status.value for cell in cells]
    assert states == ["pruned", "finished", "pruned", "finished"]


def test_a_larger_grid_judges_again_and_resumes_what_was_pruned(grid, stand, tmp_path):
    run(grid(ranks=(3, 4)), stand, tmp_path)
    assert stand.ran == [("3", 1), ("4", 1), ("4", 8)]
    stand.ran.clear()
    outcomes = run(grid(ranks=(1, 2, 3, 4)), stand, tmp_path)
    assert stand.ran == [("1", 1), ("2", 1), ("3", 2)]  # now third of four at the first rung, and second at the next
    assert statuses(outcomes) == {"1": "pruned", "2": "pruned", "3": "pruned", "4": "finished"}


def test_a_failed_run_is_not_compared_and_the_next_takes_its_place(grid, stand, tmp_path):
    stand.failing = {"4"}
    outcomes = run(grid(), stand, tmp_path)
    assert statuses(outcomes) == {"1": "pruned", "2": "pruned", "3": "finished", "4": "failed"}
    stand.failing.clear()
    stand.ran.clear()
    again = run(grid(), stand, tmp_path)
    assert stand.ran == [("4", 1), ("4", 2), ("4", 8)]
    assert statuses(again)["4"] == "finished"


def test_with_rerun_nothing_earlier_counts_and_stretches_continue_each_other(grid, stand, tmp_path):
    run(grid(), stand, tmp_path)
    stand.ran.clear()
    seen = []

    def watched(cell):
        seen.append(cell.options.rerun)
        return stand(cell)

    cells = grid(rerun=True)
    execute.run_cells(cells, partial(dispatch.run_here, watched), tmp_path, Worklist.of(cells[0].options))
    assert len(stand.ran) == 7
    assert seen == [True, True, True, True, False, False, False]  # else the checkpoint of the rung would be removed


def test_a_run_that_never_shows_its_evaluation_fails_instead_of_running_forever(grid, stand, tmp_path):
    def forgetful(cell):
        outcome = stand(cell)
        record = cell.read_record()
        store.write_record(tmp_path, record | {"training": {}})
        return outcome

    outcomes = run(grid(ranks=(1, 2)), forgetful, tmp_path)
    assert statuses(outcomes) == {"1": "failed", "2": "failed"}
    assert "its record does not show that" in outcomes["1"].message


def test_a_run_that_another_process_holds_is_not_marked(grid, stand, tmp_path):
    cells = grid(ranks=(1, 4))
    for cell in cells:
        stand(make_paused(cell))
    with mock.patch.object(locks, "take_lock", return_value=None):
        run(cells, lambda cell: Outcome(cell.plan.fingerprint, Status.failed, "held"), tmp_path)
    assert cells[0].read_record()["status"] == "interrupted"


def make_paused(cell):
    from dataclasses import replace

    return replace(cell, options=replace(cell.options, pause_after=1))


# --- real sweeps ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


REAL = ("trainer.learning_rate=1e-5,1e-3,3e-2", "lora.r=2", "trainer.max_steps=8", "trainer.evaluations=4")


@pytest.mark.slow
def test_a_real_sweep_prunes_resumes_and_trains_the_pruned_to_the_same_end(random_qwen2, rows, tmp_path, monkeypatch):
    monkeypatch.undo()  # the checks of plans are part of it
    runs = tmp_path / "runs"
    words = (*overrides(random_qwen2, rows, runs), *REAL)
    steps = mock.patch.object(
        trainer.HarnessTrainer, "training_step", autospec=True, side_effect=trainer.HarnessTrainer.training_step
    )
    with steps as step:
        done = command("-m", *words, "sweep.prune=halving")
    assert done.code == 0, done.err
    assert step.call_count == 3 * 2 + 2 * 2 + 1 * 4
    assert "rung 1: 1/3" in done.err
    kept = records_of(runs)
    assert sorted(record["status"] for record in kept.values()) == ["finished", "pruned", "pruned"]
    assert "2 pruned, 1 finished" in done.err
    assert "in no comparison" in done.out
    [folder] = (runs / "sweeps").iterdir()
    table = list(csv.DictReader((folder / "runs.csv").open()))
    assert [row["state"] for row in table].count("pruned") == 2
    report = json.loads((folder / "report.json").read_text())
    assert len(report["groups"][0]["configurations"]) == 1

    with mock.patch.object(train, "train", side_effect=pytest.fail):
        assert command("-m", *words, "sweep.prune=halving").code == 0

    again = command("-m", *words)
    assert again.code == 0, again.err
    assert again.err.count("resuming from the checkpoint") == 2
    assert {record["status"] for record in records_of(runs).values()} == {"finished"}
    whole = tmp_path / "whole"
    assert command("-m", *overrides(random_qwen2, rows, whole), *REAL).code == 0
    for fingerprint, record in records_of(whole).items():
        mine = records_of(runs)[fingerprint]
        for part in ("curve", "validation", "best_step", "tokens"):
            assert mine["training"][part] == record["training"][part]
        assert mine["scores"] == record["scores"]
        assert mine["adapter"]["sha256"] == record["adapter"]["sha256"]


@pytest.mark.slow
def test_a_single_run_and_a_run_without_validation_are_refused(random_qwen2, rows, tmp_path):
    words = overrides(random_qwen2, rows, tmp_path / "runs")
    single = command(*words, "sweep.prune=halving", "trainer.evaluations=4")
    assert (single.code, "sweep.prune=halving compares the cells of a sweep; add -m" in single.err) == (2, True)
    blind = command("-m", *words, "sweep.prune=halving", "lora.r=2,4", "trainer.evaluations=1")
    assert blind.code == 2
    assert "trainer.evaluations=1 measures none before the end; set trainer.evaluations=8" in blind.err
