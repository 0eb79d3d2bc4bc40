"""The manifest of a sweep: its cells, and the commands that ran it."""

import json
import sys

import pytest

from harness.errors import RunFault
from harness.sweep import manifest
from tests.support.sweeps import make_cell


@pytest.fixture
def grid(tmp_path, weightless):
    return [make_cell(tmp_path, weightless, "seed=0", f"lora.r={r}", sweep_name="mine") for r in range(1, 6)]


def test_manifest_holds_plans_and_commands_and_no_secret(grid, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    monkeypatch.setattr(sys, "argv", ["harness", "-m", "lora.r=1,2", "tracker.project=hunter2-hunter2"])
    folder = manifest.keep_manifest(grid)
    with pytest.raises(RunFault), manifest.recorded_command(folder):
        raise RunFault("stopped")
    content = json.loads((folder / manifest.MANIFEST_NAME).read_text())
    assert content["name"] == "mine"
    assert [cell["fingerprint"] for cell in content["cells"]] == [cell.plan.fingerprint for cell in grid]
    assert content["cells"][1]["overrides"] == ["seed=0", "lora.r=2"]
    [command] = [json.loads(file.read_text()) for file in (folder / "commands").iterdir()]
    assert command["command"] == "python -m harness -m lora.r=1,2 'tracker.project=<MY_API_KEY>'"
    assert {"started", "ended", "owner", "code", "arguments", "folder"} <= command.keys()
    assert command["outcome"] == "RunFault: stopped"


def test_options_do_not_change_a_sweeps_folder(tmp_path, weightless):
    plain = make_cell(tmp_path, weightless, "lora.r=1")
    again = make_cell(tmp_path, weightless, "lora.r=1", "sweep.reuse=any")
    assert manifest.keep_manifest([plain]) == manifest.keep_manifest([again])
