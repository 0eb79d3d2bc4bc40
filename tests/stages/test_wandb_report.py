"""stage=report report.wandb=true: offline a specification and commands, online the report itself."""

import json
import logging
import os
import subprocess
import sys

import pytest

from harness.errors import RunFault
from harness.report.build import Request, build_report
from harness.report.choose import read_runs
from harness.stages import wandb_report
from tests.report.test_wandb_report import fill, store_again
from tests.support.paths import ROOT
from tests.support.sweeps import finish_record, make_cell
from tests.support.trackers import tracker
from tests.support.wandb_server import wandb_server


@pytest.fixture
def found(tmp_path, weightless):
    record = finish_record(make_cell(tmp_path / "runs", weightless, "lora.r=4"))
    fill(record, 0)
    store_again(tmp_path / "runs", record)
    return read_runs([tmp_path / "runs"])


def publish(found, folder, settings):
    wandb_report.publish(build_report(found, Request(title="mine", chosen="1 of 1")), found, settings, folder)


def test_offline_the_specification_is_written_and_the_commands_are_said(found, tmp_path, capsys, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "harness")
    words = ["harness", "stage=report", "report.wandb=true", "tracker.mode=offline", "report.where=seed < 3"]
    monkeypatch.setattr(sys, "argv", words)
    publish(found, tmp_path, tracker("wandb", tmp_path / "my files"))
    content = json.loads((tmp_path / wandb_report.NAME).read_text())
    assert (content["project"], content["entity"], content["title"]) == ("toy", "team", "mine")
    assert content["spec"]["blocks"]
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        f"wandb sync '{tmp_path}/my files/wandb'/offline-run-*",
        "wandb login",
        "python -m harness stage=report report.wandb=true 'report.where=seed < 3' tracker.mode=online",
    ]


def test_without_a_run_in_wandb_the_remedy_is_named(found, tmp_path):
    untracked = [type(run)({**run.record, "tracker": None}, run.folder) for run in found]
    with pytest.raises(RunFault, match="none of these runs is in W&B; run their command again with tracker=wandb"):
        publish(untracked, tmp_path, tracker("wandb", tmp_path))


ONLINE = """
import sys
from pathlib import Path
from harness.report.choose import read_runs
from tests.stages.test_wandb_report import publish
from tests.support.trackers import tracker
folder = Path(sys.argv[1])
for _ in range(2):
    publish(read_runs([folder / "runs"]), folder, tracker("wandb", folder, mode="online"))
"""


@pytest.mark.slow
def test_online_the_report_is_saved_its_address_printed_and_the_second_time_replaced(found, tmp_path):
    with wandb_server() as server:
        environment = os.environ | server.environment() | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", ONLINE, str(tmp_path)]
        refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert "W&B did not accept the report" in refused.stderr  # the project is not there yet
        assert "wandb sync" in refused.stderr
        server.projects.add("toy")
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert server.unknown == []
    ((identity, view),) = server.views.items()
    address = f"{server.url}/team/toy/reports/mine--{identity}"
    assert done.stdout.split() == [address, address]
    assert (view["displayName"], view["projectName"], view["entityName"]) == ("mine", "toy", "team")
    assert '"run0"' in view["spec"]
    assert json.loads((tmp_path / wandb_report.NAME).read_text())["url"] == address
