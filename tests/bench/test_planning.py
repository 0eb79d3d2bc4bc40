"""The rows and settings of the benchmark of forecasts, and the table made of its results."""

import importlib
import json
import sys

import pytest

from harness.estimate.capacity import MEASURED
from tests.support.paths import ROOT

# Of the result files of June 2025, with older versions of every library: the same runs.
EARLIER = {"lora rank32": 22_273_851_392, "ia3 default": 23_137_878_016}


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    yield importlib.import_module("planning_table")
    for name in ("planning_table", "sections"):
        sys.modules.pop(name, None)


def line(**changed):
    return {
        **{"setting": "a", "model": "tiny", "overrides": ["peft=lora"], "rows": 2, "tokens": 8, "seconds": 1.0},
        **{
            "allocated": 100,
            "peak": 150,
            "forecast_peak": 90,
            "flops": 100.0,
            "forecast_flops": 101.0,
            "forecast_seconds": 2.0,
        },
        **changed,
    }


def test_a_row_outside_its_band_says_so(table):
    assert table.misses(line()) == []
    assert table.misses(line(forecast_peak=80)) == ["peak"]
    assert table.misses(line(forecast_peak=130, forecast_flops=104.0)) == ["peak", "operations"]
    assert list(table.lines([line(forecast_flops=96.0)]))[-1].endswith("| outside: operations |")
    assert "within its band (15%) in 1," in table.verdict([line(), line(forecast_peak=50)])


def test_the_page_shows_the_results_that_are_kept(table, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["planning_table.py", "--check"])
    assert table.main() == 0
    assert all("peak" in json.loads(each) for each in table.RESULTS.read_text(encoding="utf-8").splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("experiment", list(EARLIER))
def test_published_peaks_are_forecast_within_their_band(experiment, table, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    peaks = importlib.import_module("published_peaks")
    found = peaks.forecast(experiment)
    kept = {
        each["experiment"]: each for each in map(json.loads, peaks.RESULTS.read_text(encoding="utf-8").splitlines())
    }
    assert found == kept[experiment]
    assert found["forecast_trained"] == found["trained"]
    assert abs(found["forecast_peak"] / EARLIER[experiment] - 1) < table.PUBLISHED_BAND


def test_every_published_peak_of_the_page_is_within_the_band_that_it_states(table):
    lines = [json.loads(line) for line in table.PUBLISHED.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 9
    assert all(abs(table.off(each, "peak")) < table.PUBLISHED_BAND for each in lines)
    assert all(each["trained"] == each["forecast_trained"] for each in lines)


def test_the_constants_of_the_harness_are_the_measured_ones(table):
    lines = [json.loads(line) for line in table.CAPACITY.read_text(encoding="utf-8").splitlines()]
    found = table.constants(lines)
    assert {passes: sum(values.values()) / 2 for passes, values in found.items()} == pytest.approx(MEASURED, abs=0.006)
    assert all(set(values) == {"hex", "digits"} for values in found.values())


def training(rank, share, **changed):
    """A training on 1,000 bits of values, which the base reads as 1,200."""
    stored = 200 + 1000 * share
    made = {"set": "x", "use": "checks", "passes": 200, "rank": rank, "trained": 100 * rank, "bits": 1200.0}
    return {**made, "random_bits": 1000.0, "stored": stored, **changed}


def test_a_knee_is_predicted_from_what_the_base_reads_and_measured_on_the_values(table):
    assert table.knees([training(4, 0.89), training(8, 0.91), training(16, 1.0)]) == (8, 8)  # 1200 / 189 = 6.3
    assert table.knees([training(4, 0.5), training(8, 0.6)]) == (8, None)
    told = [line.split("|")[-2].strip() for line in table.knee_lines([training(2, 0.95)])]
    assert told[-1] == "**off**"
    assert list(table.knee_lines([training(4, 0.95)]))[-1].split("|")[-2].strip() == "within 2x"
    assert list(table.knee_lines([training(8, 0.95)]))[-1].split("|")[-2].strip() == "equal"
