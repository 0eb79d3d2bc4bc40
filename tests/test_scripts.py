"""The scripts that no other test runs keep working when the modules they measure or read change."""

import importlib
import runpy
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.runs import overrides, write_rows

SCRIPTS = [path for path in ROOT.glob("scripts/**/*.py") if "__main__" in path.read_text(encoding="utf-8")]
WITH_HELP = sorted(path for path in SCRIPTS if path.stem != "logits")  # which takes overrides


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of scripts/bench as running it would."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    yield importlib.import_module
    for name in ("logits", "scale"):
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
