"""Trackio: a project's runs in one SQLite file, with figures, texts, table and state; no request to any server."""

import json
import sqlite3
import subprocess
import sys

import pytest

from harness.errors import RunFault
from harness.trackers import trackio as harness_trackio
from tests.support.paths import ROOT
from tests.support.trackers import start, tracker

pytest.importorskip("trackio", reason="trackio is not installed (pip install 'peft-harness[trackio]')")

PLAY = """
import socket, sys
from pathlib import Path
from tests.support.trackers import play, start, tracker
def refuse(*arguments): raise AssertionError(f"connects to {arguments[1:]}")
socket.socket.connect = refuse
folder = Path(sys.argv[1])
(folder / "adapter").mkdir()
(folder / "adapter" / "weights.bin").write_bytes(b"12")
first = start(tracker("trackio", folder, tags=["paper"], notes="why", artifact=True))
first.log(1, {"train/loss": 1.0, "progress/step": 1})
second = start(tracker("trackio", folder))  # while the first is open
play(second, ok=True)
first.finish(False)
again = start(tracker("trackio", folder, tags=["paper"], notes="why"), run_id=first.id, name="another name")
again.log(2, {"train/loss": 0.5, "progress/step": 2})
again.summary({"validation/loss": 0.25, "device/name": "a cpu"})
again.artifact("adapter-ffff", folder / "adapter", {"method": "lora"})
again.finish(True)
print(first.id, second.id)
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Two runs, one of them continued, in a process of their own: Trackio takes its folder once a process."""
    folder = tmp_path_factory.mktemp("trackio")
    done = subprocess.run(
        [sys.executable, "-c", PLAY, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    with sqlite3.connect(folder / "toy.db") as database:
        metrics = database.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
        configs = database.execute("select run_id, config from configs").fetchall()
    rows = [(run, name, step, json.loads(values)) for run, name, step, values in metrics]
    return folder, done, rows, {run: json.loads(config) for run, config in configs}


def test_runs_of_one_process_stay_apart_and_a_continued_run_keeps_id_and_name(played):
    _, done, rows, _ = played
    first, second = done.stdout.split()  # nothing else is printed
    assert done.stderr == ""
    assert {(run, name) for run, name, _, _ in rows} == {(each, "peft=lora lora.r=4") for each in (first, second)}
    losses = {run: [values["train/loss"] for r, _, _, values in rows if r == run and "train/loss" in values]
              for run in (first, second)}  # fmt: skip
    assert losses == {first: [1.0, 0.5], second: [1.0, 0.5, pytest.approx(1 / 3)]}


def test_figures_table_artifact_and_state_are_on_record(played):
    folder, done, rows, configs = played
    first, second = done.stdout.split()
    last = {run: {key: value for r, _, _, values in rows if r == run for key, value in values.items()}
            for run in (first, second)}  # fmt: skip
    assert (last[first]["summary/state"], last[second]["summary/state"]) == ("finished", "finished")
    assert (last[first]["summary/validation/loss"], last[first]["summary/device/name"]) == (0.25, "a cpu")
    assert last[second]["summary/after/exact_match"] == 0.625
    assert "问题|one" in json.dumps(last[second]["predictions"], ensure_ascii=False)
    assert (configs[first]["tags"], configs[first]["notes"]) == (["lora", "tiny", "paper"], "why")
    assert configs[first]["_Group"] == "sweep-1"
    assert configs[first]["_Username"] is None  # the hub was not asked
    assert any(file.read_bytes() == b"12" for file in (folder / "artifacts").rglob("*") if file.is_file())


def test_without_the_package_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(RunFault, match=r"tracker=trackio needs a package.*peft-harness\[trackio\]"):
        start(tracker("trackio", tmp_path))


def test_a_second_folder_in_one_process_is_refused(tmp_path):
    code = (
        "from pathlib import Path; from harness.trackers.trackio import import_trackio;"
        f"import_trackio(Path({str(tmp_path / 'a')!r})); import_trackio(Path({str(tmp_path / 'b')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "use one tracker.dir for all runs of a process" in done.stderr


def test_a_project_is_a_file_name():
    assert harness_trackio.project_name("team/50% #1") == "team-50-1"
    assert harness_trackio.project_name("///") == "peft-harness"
