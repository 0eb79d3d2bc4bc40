"""The rows and settings of the benchmark of forecasts, and the table made of its results."""

import importlib
import json
import sys

import pytest

from tests.support.paths import ROOT


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    yield importlib.import_module("planning_table")
    for name in ("planning_table", "sections"):
        sys.modules.pop(name, None)


def line(**changed):
    return {
        **{"setting": "a", "model": "tiny", "overrides": ["peft=lora"], "rows": 2, "tokens": 8, "seconds": 1.0},
        **{"peak": 100, "forecast_peak": 80, "flops": 100.0, "forecast_flops": 101.0, "forecast_seconds": 2.0},
        **changed,
    }


def test_a_row_outside_its_band_says_so(table):
    assert table.misses(line()) == []
    assert table.misses(line(model="smollm2_135m")) == ["peak"]
    assert table.misses(line(forecast_peak=130, forecast_flops=104.0)) == ["peak", "operations"]
    assert list(table.lines([line(forecast_flops=96.0)]))[-1].endswith("| outside: operations |")
    assert "within its band in 1 " in table.verdict([line(), line(forecast_peak=50)])


def test_the_page_shows_the_results_that_are_kept(table, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["planning_table.py", "--check"])
    assert table.main() == 0
    assert all("peak" in json.loads(each) for each in table.RESULTS.read_text(encoding="utf-8").splitlines())
