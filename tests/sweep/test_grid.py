"""Grids are checked as a whole before any of their cells runs."""

from dataclasses import replace

import pytest

from harness.errors import DataFault
from harness.sweep.grid import check_data, unique_plans
from tests.support.runs import command, overrides, records_of, write_rows
from tests.support.sweeps import make_cell


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def sweep(random_qwen2, rows, tmp_path):
    return lambda *words: command("-m", *overrides(random_qwen2, rows, tmp_path / "runs"), *words)


def test_if_a_cell_is_wrong_nothing_runs_and_each_fault_is_listed_once(sweep, tmp_path):
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


@pytest.mark.parametrize("stage", ["generate", "report"])
def test_stages_of_single_runs_do_not_take_a_sweep(sweep, tmp_path, stage):
    done = sweep(f"stage={stage}", "seed=0,1", "run=abc", "prompt=x")
    assert done.code == 2
    assert f"stage={stage} does not take a sweep; leave out -m" in done.err
    assert records_of(tmp_path / "runs") == {}


def test_batches_of_a_grid_are_refused_because_later_cells_would_be_unchecked(sweep):
    done = sweep("seed=0,1", "hydra.sweeper.max_batch_size=1")
    assert done.code == 2
    assert "hydra.sweeper.max_batch_size=1" in done.err


def test_negative_limit_of_failures_is_refused(sweep):
    done = sweep("lora.r=2,4", "sweep.max_failures=-1")
    assert done.code == 2
    assert "sweep.max_failures=-1 is too small" in done.err


def test_cells_that_share_a_plan_are_one_and_base_models_stay_together(tmp_path, weightless):
    import shutil

    other = shutil.copytree(weightless, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text().replace("64", "65"))
    words = (
        (weightless, "lora.r=1"),
        (other, "lora.r=1"),
        (weightless, "lora.r=2"),
        (weightless, "ia3.feedforward_modules=[a]"),
        (weightless, "lora.r=1"),
    )
    cells = [make_cell(tmp_path, model, setting) for model, setting in words]
    plans = unique_plans(cells)
    assert [cells.index(cell) for cell in plans] == [0, 2, 3, 1]


def test_bad_rows_are_found_once_per_data_set(tmp_path, weightless):
    missing = [make_cell(tmp_path, weightless, f"lora.r={r}") for r in (1, 2)]
    broken = tmp_path / "rows.jsonl"
    broken.write_text("{\n")
    missing = [
        replace(cell, plan=replace(cell.plan, data=replace(cell.plan.data, path=str(broken)))) for cell in missing
    ]
    with pytest.raises(DataFault) as caught:
        check_data(missing)
    assert str(caught.value).count(str(broken)) == 1
