"""stage=plan: the grid is printed and nothing runs."""

import pytest

from harness.record import provenance
from tests.support.runs import command, overrides, write_rows

GRID = ("peft=lora,ia3", "lora.r=4,8,16")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def sweep(random_qwen2, rows, tmp_path):
    return lambda *words: command("-m", *overrides(random_qwen2, rows, tmp_path / "runs"), *words)


def test_a_plan_is_printed_and_nothing_is_written(sweep, tmp_path):
    done = sweep("stage=plan", *GRID)
    assert done.code == 0
    assert "6 cells, 4 runs" in done.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_plan_says_which_runs_finished_earlier_and_by_which_code(sweep, monkeypatch):
    assert sweep("lora.r=2", "seed=0").code == 0
    assert sweep("stage=plan", "lora.r=2,4").out.count("yes") == 1
    monkeypatch.setattr(provenance, "code_version", lambda: "0123456789abcdef")
    assert "yes" not in sweep("stage=plan", "lora.r=2,4").out
    assert "yes, by other code" in sweep("stage=plan", "lora.r=2,4", "sweep.reuse=any").out


def test_costs_on_a_device_name_parts_fit_and_total(sweep):
    done = sweep("stage=plan", "peft=lora,fourierft", "plan.device=h100", "plan.tokens=24")
    assert done.code == 0, done.err
    assert "memory of a pass on h100, MiB, bfloat16" in done.out
    assert "1 of 2 runs fit; 1 of 2 runs not counted" in done.out
    assert "costs unknown: peft=fourierft computes with base weights" in done.out


def test_capacity_sets_bits_of_the_rows_against_those_of_the_adapter(sweep):
    done = sweep("stage=plan", "lora.r=2", "seed=0", "plan.capacity=true")
    assert done.code == 0, done.err
    assert "capacity: 1.89 bits a trained number of what it sees often" in done.out
    assert "below it, size binds the method" in done.out


def test_capacity_is_shown_beside_costs_and_for_every_run(sweep):
    done = sweep("stage=plan", "peft=lora,ia3", "seed=0", "plan.capacity=true", "plan.device=h100")
    assert done.code == 0, done.err
    assert "memory of a pass on h100" in done.out
    capacity = done.out.partition("capacity: ")[2].splitlines()
    assert sum(line.split()[0].isalnum() and len(line.split()[0]) == 12 for line in capacity if line.strip()) == 2


def test_faults_of_the_plan_settings_are_said_together(sweep):
    done = sweep("stage=run", "seed=0", "plan.device=h1000", "plan.capacity=true", "plan.tokens=1")
    assert done.code != 0
    for words in (
        "plan.device=h1000 is unknown",
        "plan.device=h1000 belongs to stage=plan",
        "plan.capacity=true belongs to stage=plan",
        "plan.tokens=1 belongs to stage=plan",
    ):
        assert words in done.err


def test_tokens_without_a_device_are_refused_and_not_ignored(sweep):
    done = sweep("stage=plan", "seed=0", "plan.tokens=64")
    assert done.code != 0
    assert "plan.tokens=64 has no effect without a device" in done.err
