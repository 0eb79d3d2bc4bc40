"""What the folder of a sweep tells a report."""

import json

import pytest

from harness.errors import ConfigFault
from harness.report.build import Request, Winner
from harness.sweep import manifest
from harness.sweep.sweep_report import content_of, read_sweep
from tests.support.sweeps import make_cell


@pytest.fixture
def cells(tmp_path, weightless):
    return [make_cell(tmp_path, weightless, f"lora.r={r}") for r in (1, 1, 2)]


def test_a_manifest_gives_cells_commands_and_winners(cells, tmp_path):
    winner = Winner(("a",), ("b",), 3, "loss", "validation", "lora")
    folder = manifest.keep_manifest(cells, selection={"winners": [vars(winner)]})
    with manifest.recorded_command(folder):
        pass
    sweep = read_sweep(folder)
    assert [len(names) for names in sweep.cells.values()] == [2, 1]
    assert sweep.winners == (winner,)
    assert len(sweep.commands) == 1
    assert content_of(cells, folder).cells == sweep.cells
    assert content_of(cells, folder).winners == (winner,)


def test_cells_without_a_record_are_shown_as_not_run(cells, tmp_path):
    sweep = content_of(cells, tmp_path / "none")
    first, second = sweep.cells
    request = sweep.added_to(Request(), {first}, ())
    assert [(run.fingerprint, run.state) for run in request.missing] == [(second, "not run")]
    request = sweep.added_to(Request(), {first}, {second})
    assert [run.state for run in request.missing] == ["not started"]


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"cells": [{"fingerprint": "a"}]})])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / manifest.MANIFEST_NAME).write_text(content)
    with pytest.raises(ConfigFault, match=r"report\.sweep=.* has no readable sweep\.json"):
        read_sweep(tmp_path)
