"""The runs that ``report.*`` chooses, for stages that work on many of them."""

import json

import pytest

from harness.errors import ConfigFault
from harness.plan.read import read_config
from harness.stages.chosen import chosen_runs
from tests.support.configs import overridden
from tests.support.reports import write_run


@pytest.fixture
def runs_dir(tmp_path):
    records = [write_run(tmp_path / "runs", "lora", seed) for seed in (0, 1)]
    write_run(tmp_path / "runs", "ia3", 0)
    cells = [
        {"fingerprint": each["fingerprint"], "name": "lora", "method": "lora", "overrides": []} for each in records
    ]
    for name in ("mine", "other"):
        folder = tmp_path / "runs" / "sweeps" / f"abc{name}"
        folder.mkdir(parents=True)
        (folder / "sweep.json").write_text(json.dumps({"name": name, "cells": cells if name == "mine" else cells[:1]}))
    return tmp_path / "runs"


def chosen(runs_dir, *words):
    return chosen_runs(read_config(overridden("stage=report", f"runs_dir={runs_dir}", *words))[1])


def test_a_sweep_is_found_by_name_by_folder_name_and_by_folder(runs_dir):
    for text in ("mine", "abcmine", str(runs_dir / "sweeps" / "abcmine"), str(runs_dir / "sweeps/abcmine/sweep.json")):
        found = chosen(runs_dir, f"report.sweep={text}")
        assert len(found.runs) == 2
        assert "of the sweep mine" in found.words
    elsewhere = chosen(runs_dir.parent / "nothing", f"report.sweep={runs_dir / 'sweeps' / 'abcother'}")
    assert len(elsewhere.runs) == 1


def test_choices_narrow_each_other(runs_dir):
    found = chosen(runs_dir, "report.sweep=mine", "report.where='seed == 1'")
    assert [run.record["plan"]["seed"] for run in found.runs] == [1]
    assert found.words.startswith("1 of 3 runs in ")
    assert found.words.endswith("of the sweep mine, where seed == 1")


def test_a_sweep_without_records_names_the_remedy(runs_dir):
    for folder in runs_dir.glob("*/record.json"):
        if '"lora"' in folder.read_text():
            folder.unlink()
    with pytest.raises(ConfigFault, match=r"report\.sweep=mine has 2 plans, none of which has a record"):
        chosen(runs_dir, "report.sweep=mine")
