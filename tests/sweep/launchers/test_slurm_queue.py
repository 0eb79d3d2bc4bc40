"""What SLURM says about jobs, and the jobs that an earlier command left in the queue."""

import subprocess
from itertools import pairwise
from types import SimpleNamespace

from harness.sweep.launchers import slurm_queue
from tests.support.sweeps import worker_job


def test_jobs_that_an_earlier_command_left_in_the_queue_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_queue, "states", lambda: {"7_1": "RUNNING"})
    slurm_queue.note_jobs(
        tmp_path,
        {tmp_path / "slurm" / "u" / "7_0": [worker_job("a")], tmp_path / "slurm" / "u" / "7_1": [worker_job("b")]},
    )
    assert slurm_queue.jobs_in_queue(tmp_path, [worker_job("a"), worker_job("b")]) == {
        tmp_path / "slurm" / "u" / "7_1": [worker_job("b")]
    }


def test_answers_of_slurm_are_read(monkeypatch):
    output = "7_0 RUNNING None\n7_1 PENDING Priority\n8 PENDING (launch failed requeued held)\nodd line here\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=output))
    assert slurm_queue.states() == {"7_0": "RUNNING", "7_1": "PENDING", "8": "PENDING (launch failed requeued held)"}
    output = "JobId=7 JobState=TIMEOUT Reason=TimeLimit"
    assert slurm_queue.reason_of_end("7_0") == "TIMEOUT, reason TimeLimit"
    output = "JobId=7 JobState=CANCELLED Reason=None"
    assert slurm_queue.reason_of_end("7_0") == "CANCELLED"
    output = ""
    assert slurm_queue.reason_of_end("7_0") == "SLURM no longer says why"


def test_slurm_that_does_not_answer_is_no_end_of_a_job(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_queue.states() is None
    assert slurm_queue.states(warn=False) is None
    assert [message.partition(" (")[0] for message in caplog.messages] == ["squeue does not answer"]
    assert slurm_queue.reason_of_end("7_0") == "SLURM does not say why"


def test_changes_of_a_job_are_said_once(caplog):
    caplog.set_level("INFO")
    looks = [None, "PENDING", "PENDING (PartitionConfig)", "RUNNING", "RUNNING", "PENDING (BeginTime)", "RUNNING", ""]
    for before, now in pairwise(looks):
        slurm_queue.log_change("7_0", [worker_job("a")], before, now)
    assert [message.removesuffix(": a") for message in caplog.messages] == [
        "7_0 PENDING",
        "7_0 PENDING (PartitionConfig)",
        "7_0 RUNNING",
        "7_0 PENDING (BeginTime), back in the queue",
        "7_0 RUNNING",
    ]
