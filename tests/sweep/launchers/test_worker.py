"""One plan in a worker: it composes the same plan as the command, or says why it cannot."""

import json
import threading
import time
from dataclasses import replace

import pytest

from harness.record import store
from harness.record.files import atomic_write_text
from harness.sweep.launchers import worker
from harness.sweep.outcome import Status
from tests.support.sweeps import worker_job


def test_worker_refuses_a_plan_that_is_another_here(tmp_path, weightless):
    outcome = worker.run_job(worker_job("0" * 12, "m", tmp_path, f"model.path={weightless}", f"runs_dir={tmp_path}"))
    assert (outcome.status, "give every machine the same files" in outcome.message) == (Status.failed, True)
    assert store.all_records(tmp_path) == []


def test_worker_without_the_commands_folder_says_so(tmp_path):
    here = worker_job("0" * 12, "m", tmp_path)
    outcome = worker.run_job(replace(here, source=replace(here.source, cwd=str(tmp_path / "gone"))))
    assert outcome.status == Status.failed
    assert "every machine sees" in outcome.message


def test_worker_finds_files_of_further_configuration_folders(tmp_path, weightless):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text("defaults: [default, _self_]\nepochs: 7\n")
    overrides = ("trainer=mine", f"model.path={weightless}")
    here = worker_job("0" * 12, "m", tmp_path, *overrides)
    composed = worker.compose_job(replace(here, source=replace(here.source, searchpath=(f"file://{tmp_path}",))))
    assert composed.trainer.epochs == 7


@pytest.fixture
def running(tmp_path):
    """A job and its record, as a process leaves them that dies in the middle."""
    store.start_record(tmp_path, "f" * 12, "lora", {"seed": 0}, {"seed": 0})
    record = json.loads(store.record_path(tmp_path, "f" * 12).read_text())
    record["owner"] |= {"host": "node7", "pid": 4711}
    store.write_record(tmp_path, record)
    here = worker_job("f" * 12, "m", tmp_path / "sweeps" / "s")
    atomic_write_text(worker.owner_file(here), json.dumps(record["owner"]))
    return here, tmp_path, record


def test_record_of_a_worker_that_died_elsewhere_says_interrupted(running):
    here, runs_dir, _ = running
    assert store.read_record(runs_dir, here.fingerprint)["status"] == "running"
    worker.mark_interrupted(here, runs_dir, "node7 is gone")
    record = store.read_record(runs_dir, here.fingerprint)
    assert (record["status"], record["error"]["message"]) == ("interrupted", "node7 is gone")
    assert not store.schema_faults(record)


def test_record_of_another_process_is_left_alone(running):
    here, runs_dir, record = running
    store.write_record(runs_dir, record | {"owner": record["owner"] | {"pid": 4712}})
    worker.mark_interrupted(here, runs_dir, "node7 is gone")
    assert store.read_record(runs_dir, here.fingerprint)["status"] == "running"


def test_no_run_starts_once_the_stop_file_exists(tmp_path):
    (tmp_path / "stop").touch()
    outcome = worker.run_job(replace(worker_job("0" * 12, "m", tmp_path), stop=str(tmp_path / "stop")))
    assert outcome.status is Status.not_started


def test_a_file_stops_a_running_job_where_no_signal_reaches(tmp_path, monkeypatch):
    job = replace(worker_job(folder=tmp_path), stop=str(tmp_path / "stop"))
    monkeypatch.setattr(worker, "STOP_POLL_S", 0.01)

    def run(job):
        worker.stop_file(job).touch()
        time.sleep(30)

    monkeypatch.setattr(worker, "run_job", run)
    outcome = worker.run_until_stopped(job)
    assert (outcome.status, outcome.message) == (Status.died, "its process was stopped by SIGTERM")
    assert not [thread for thread in threading.enumerate() if thread.name == "stop"]
