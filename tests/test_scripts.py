"""The scripts that no other test runs keep working when the modules they measure or read change."""

import importlib
import json
import runpy
import sys

import pytest

from harness.record import store
from harness.record.run_record import Failure
from tests.support.paths import ROOT
from tests.support.reports import write_run
from tests.support.runs import overrides, write_rows

SCRIPTS = [path for path in ROOT.glob("scripts/**/*.py") if "__main__" in path.read_text(encoding="utf-8")]
WITH_HELP = sorted(path for path in SCRIPTS if path.stem != "logits")  # which takes overrides


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of scripts/bench as running it would."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    yield importlib.import_module
    for name in ("logits", "scale", "halving", "neighbor"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("script", WITH_HELP, ids=lambda path: path.stem)
def test_script_explains_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(str(script.parent))
    with pytest.raises(SystemExit) as stop:  # in this process, which pays for torch once
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_scale_measures_each_operation(bench, tmp_path, capsys):
    bench("scale").measure_records(tmp_path, runs=8, repeats=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("8 records of ")
    assert len(lines) == 8


@pytest.mark.slow
def test_scale_composes_what_it_measures(bench, capsys):
    bench("scale").measure_composition(repeats=1, cells=4)
    assert "compose and read" in capsys.readouterr().out


def test_simulated_sweep_takes_longer_on_a_slower_file_server(bench):
    slow, fast = (bench("scale").simulate(100, nodes=4, run_s=60.0, rate=rate) for rate in (5.0, 5_000.0))
    assert hours(slow) > hours(fast)


def hours(line: str) -> float:
    return float(line.split("op/s:")[1].split(" h")[0])


def test_logits_compares_both_kinds_of_step(bench, random_qwen2, tmp_path, monkeypatch, capsys):
    small = overrides(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs")
    monkeypatch.setattr(sys, "argv", ["logits.py", *small])
    bench("logits").main()
    assert "times as fast" in capsys.readouterr().out


# --- replaying sweep.prune=halving on records ---------------------------------------------------------------


def made_up_sweep(runs_dir, name: str, curves: dict[int, list[list[float]]]) -> None:
    """A complete sweep of LoRA: by rank, the validation losses of each of its seeds."""
    cells = []
    for rank, seeds in curves.items():
        for seed, losses in enumerate(seeds):
            points = [{"step": 10 * (n + 1), "loss": loss} for n, loss in enumerate(losses)]
            training = {
                "optimizer_steps": 80, "tokens": 1, "tokens_per_s": 1.0, "best_step": None, "curve": [],
                "validation": points,
            }  # fmt: skip
            kept = write_run(
                runs_dir, "lora", seed, f"lora.r={rank}", f"trainer.warmup_share=0.{name}", training=training
            )
            cells.append({"overrides": [], "fingerprint": kept["fingerprint"], "name": str(rank), "method": "lora"})
    folder = runs_dir / "sweeps" / name
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"name": name, "cells": cells}))


def steady(rank: int, seeds: int = 2) -> list[list[float]]:
    """Losses that keep their order: higher ranks are better."""
    return [[1 + 1 / rank + 0.001 * seed + (8 - n) / 8 for n in range(8)] for seed in range(seeds)]


def test_replaying_steady_curves_saves_steps_and_errs_never(bench, tmp_path, monkeypatch, capsys):
    for number in range(1, 4):
        made_up_sweep(tmp_path, str(number), {rank: steady(rank) for rank in range(1, 9)})
    out = tmp_path / "out.json"
    monkeypatch.setattr(
        sys, "argv", ["halving.py", str(tmp_path), "--resamples", "60", "--out", str(out), "--rules", "0.5,0.125,0"]
    )
    halving = bench("halving")
    halving.main()
    shown = capsys.readouterr().out
    assert "3 complete sweeps, 48 runs, 3 races" in shown
    [result] = json.loads(out.read_text())
    assert (result["sub_sweeps"], result["sweeps"], result["wrong"], result["worst_excess"]) == (60, 3, 0, 0.0)
    assert 0.5 < result["saved"] < 0.75
    assert result["upper"] == pytest.approx(1 - 0.05 ** (1 / 3))  # three sweeps without an error tell no more
    assert result["upper_if_independent"] == pytest.approx(1 - 0.05 ** (1 / 60))


def test_a_late_winner_is_a_wrong_winner(bench, tmp_path):
    late = [[9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.1 + 0.001 * seed] for seed in range(2)]
    made_up_sweep(tmp_path, "1", {rank: steady(rank) for rank in range(1, 8)} | {8: late})
    halving = bench("halving")
    [race] = halving.races_in(tmp_path)
    rule = halving.Rule(0.5, 0.125, 0.0)
    found = halving.replay(race, race.curves, rule, halving.floor(race, 0.02))
    assert found.wrong
    assert found.excess == pytest.approx(1 + 1 / 7 + 1 / 8 - 0.1, abs=1e-3)
    # 16 runs to 10 steps, 8 of them to 20, 4 to 40, 2 to 80: 400 of 1280
    assert found.saved == pytest.approx(1 - (8 * 10 + 4 * 20 + 2 * 40 + 2 * 80) / (16 * 80))
    whole = halving.evaluate([race], rule, 50, 0, 0.02)
    assert 0 < whole.wrong < 50
    assert whole.upper > whole.upper_if_independent > whole.rate


def test_what_is_not_a_complete_sweep_is_left_out_and_named(bench, tmp_path, monkeypatch, capsys):
    made_up_sweep(tmp_path, "1", {rank: steady(rank) for rank in range(1, 5)})
    record = store.all_records(tmp_path)[0]
    store.write_record(tmp_path, record | {"status": "failed", "error": vars(Failure("E", "no", "", ""))})
    monkeypatch.setattr(sys, "argv", ["halving.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="no complete sweep with 4 or more configurations"):
        bench("halving").main()
    assert "in which 1 runs have not finished" in capsys.readouterr().out


def test_noise_follows_from_seeds_or_is_given(bench, tmp_path):
    halving = bench("halving")
    spread = {rank: [[2.0, 1.0 + 0.1 * seed] for seed in range(2)] for rank in range(1, 5)}
    made_up_sweep(tmp_path / "a", "1", spread)
    [race] = halving.races_in(tmp_path / "a")
    # The spread of two seeds 0.1 apart is 0.0707; 4 degrees of freedom; means of two seeds.
    assert halving.floor(race, 0.5) == pytest.approx(2.776 * 0.0707, rel=1e-3)
    made_up_sweep(tmp_path / "b", "1", {rank: [[2.0, 1.0]] for rank in range(1, 5)})
    [race] = halving.races_in(tmp_path / "b")
    assert halving.floor(race, 0.5) == pytest.approx(0.5)


def test_a_bound_counts_dependent_sub_sweeps_once(bench):
    halving = bench("halving")
    together = [[True] * 10] + [[False] * 10] * 9
    apart = [[True] + [False] * 9] * 10
    assert halving.correlation(together) == pytest.approx(1.0)
    assert halving.correlation(apart) == 0.0
    assert halving.clustered_bound(together) == pytest.approx(halving.bound(1, 10))
    assert halving.clustered_bound(apart) == pytest.approx(halving.bound(10, 100))
    assert halving.bound(0, 150) < 0.02 < halving.bound(0, 140)


def test_neighbors_are_judged_by_medians(bench):
    neighbor = bench("neighbor")
    speeds = {
        ("chosen", False): [{"tokens_per_s": speed, "threads": 2} for speed in (90.0, 100.0, 110.0)],
        ("chosen", True): [{"tokens_per_s": speed, "threads": 1} for speed in (60.0, 50.0, 40.0)],
        ("surprised", False): [{"tokens_per_s": 100.0, "threads": 2}],
        ("surprised", True): [{"tokens_per_s": 80.0, "threads": 2}],
    }
    rows = neighbor.summary(speeds)
    assert [row["cost"] for row in rows] == [2.0, 1.25]
    assert "| chosen | 2 | 100 (90 to 110) | 1 | 50 (40 to 60) | 2.00 |" in neighbor.table(rows)
    assert list(neighbor.verdicts(rows)) == [
        "chosen: neighbors cost a factor of 2.00, not below 2",
        "surprised: neighbors cost a factor of 1.25, below 2",
    ]


@pytest.mark.slow
def test_a_neighbor_is_measured_by_commands_of_their_own(bench):
    neighbor = bench("neighbor")
    found = neighbor.measure(neighbor.Case("one", 1, {}), 1, 2)
    assert found["threads"] == 1
    assert found["tokens_per_s"] > 0
