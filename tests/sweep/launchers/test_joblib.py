"""Worker processes on this machine: their share of it, and what becomes of them and of their runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import ConfigFault
from harness.runtime import threads
from harness.sweep.launchers import joblib
from tests.support.paths import ROOT
from tests.support.sweeps import SweepCommand, assert_same_results, needs_tiny

STARTS_A_WORKER = """
import sys, time
from pathlib import Path
from dataclasses import replace
from harness.sweep.launchers.joblib import LokyWorker
from tests.support.sweeps import worker_job
worker = LokyWorker({})
here = worker_job("0" * 12, "m", Path(sys.argv[1]))
worker.submit(replace(here, source=replace(here.source, cwd="/nowhere"))).result()
print(*worker.process_ids, flush=True)
time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes are looked up by signal 0")
@pytest.mark.posix
def test_worker_leaves_when_the_command_that_started_it_is_killed(tmp_path):
    pytest.importorskip("joblib")
    command = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_WORKER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    pid = int(command.stdout.readline())
    os.kill(pid, 0)
    command.kill()
    command.wait()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker stayed")


def test_each_worker_gets_one_gpu_if_there_are_several(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,GPU-c")
    gpus = joblib.visible_gpus()
    given = [joblib.worker_environment(number, 4, gpus)["CUDA_VISIBLE_DEVICES"] for number in range(4)]
    assert given == ["GPU-a", "GPU-b", "GPU-c", "GPU-a"]


def test_single_gpu_is_left_to_all_workers():
    assert "CUDA_VISIBLE_DEVICES" not in joblib.worker_environment(0, 2, ["0"])


def test_workers_share_the_cores_unless_threads_are_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "total", lambda: threads.Threads(8, "eight are free"))
    assert joblib.worker_environment(0, 3, [])["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert joblib.worker_environment(0, 3, [])["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("wrong", [0, "two", True])
def test_number_of_processes_must_be_a_number(wrong):
    with pytest.raises(ConfigFault, match=r"hydra\.launcher\.engine\.n_jobs"):
        joblib.Joblib(n_jobs=wrong).check()


def assert_killed_then_resumed(launcher: tuple[str, ...], runs_dir: Path, fingerprints, **variables: str) -> dict:
    """One of two workers is killed; the other run ends well; the same command does the rest. Returns the records."""
    victim, other = fingerprints
    sweep = SweepCommand(runs_dir, "lora.r=2,4", *launcher, **variables)
    os.kill(sweep.worker_of(victim), signal.SIGKILL)
    code, output = sweep.end()
    record = sweep.records()
    assert code == 1, output
    assert f"lora r=2 ({victim}): died" in output
    assert "1 of 2 runs failed" in output
    assert record[other]["status"] == "finished"
    assert victim not in record or record[victim]["status"] == "interrupted"
    again = SweepCommand(runs_dir, "lora.r=2,4", *launcher, **variables)
    code, output = again.end()
    assert code == 0, output
    assert again.records()[victim]["status"] == "finished"
    return again.records()


@pytest.mark.slow
@needs_tiny
def test_killed_process_costs_one_run_and_the_same_command_retries_it(tmp_path, fingerprints, in_process):
    pytest.importorskip("joblib")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.engine.n_jobs=2")
    assert_same_results(assert_killed_then_resumed(launcher, tmp_path / "runs", fingerprints), in_process)


@pytest.mark.slow
@needs_tiny
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.posix
def test_a_signal_to_the_command_alone_reaches_its_workers_which_write_checkpoints(tmp_path, times):
    """As from a supervisor or an IDE; the second signal, if there is one, is the terminal's to all of them."""
    pytest.importorskip("joblib")
    words = ("hydra/launcher=joblib", "hydra.launcher.engine.n_jobs=2", "trainer.max_steps=100000")
    sweep = SweepCommand(tmp_path / "runs", "lora.r=2,4", *words)
    deadline = time.monotonic() + 200
    while (
        sum(bool(re.search(r'"step": [1-9]', each.read_text())) for each in sweep.runs_dir.glob("*/progress.json")) < 2
    ):
        assert time.monotonic() < deadline, sweep.output.read_text()
        time.sleep(0.1)
    workers = [int(json.loads(file.read_text())["pid"]) for file in sweep.runs_dir.glob("sweeps/*/workers/*.json")]
    sweep.process.send_signal(signal.SIGINT)
    for pid in workers if times == 2 else []:
        os.kill(pid, signal.SIGINT)
    code, output = sweep.end(50)
    assert code == 130, output
    assert {record["status"] for record in sweep.records().values()} == {"interrupted"}
    assert len({path.parent for path in sweep.runs_dir.glob("*/checkpoints/step-*")}) == 2
