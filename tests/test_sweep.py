"""Sweeps: each plan once, each cell shown, each failure told, nothing run where something is wrong."""

import csv
from unittest import mock

import pytest

from harness import models, shared, train
from runs import command, overrides, records_of, write_rows

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
    shared.release()
    loading = mock.patch.object(models, "load_base", side_effect=models.load_base)
    training = mock.patch.object(train, "train", side_effect=train.train)
    with loading as load, training as trained:
        first = sweep(*GRID)
        assert (first.code, load.call_count, trained.call_count) == (0, 1, 4), first.err
        assert "6 cells, 4 runs, 0 of them finished earlier" in first.err
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
    with mock.patch.object(train, "train", side_effect=train.train) as trained:
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
