"""Jobs on workers: every job has one outcome, and a worker's death costs one run."""

import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from harness.errors import ConfigFault
from harness.runtime import signals
from harness.sweep.launchers import base
from harness.sweep.launchers.base import Worker, reason_of_death, run_jobs
from harness.sweep.launchers.ray import Ray
from harness.sweep.launchers.worker import WorkerJob
from harness.sweep.outcome import Outcome, Status
from tests.support.configs import CONF
from tests.support.sweeps import finished, worker_job


class ThreadWorker(Worker):
    """Runs jobs in a thread; a fingerprint that starts with x kills it, one with s waits for close."""

    def __init__(self, dead: bool = False) -> None:
        self.ran, self.restarts, self.closed, self._dead = [], 0, threading.Event(), dead
        self.asked = 0
        self._pool = ThreadPoolExecutor(1)

    def submit(self, job: WorkerJob) -> "Future[Outcome]":
        if self._dead:
            raise RuntimeError("broken")
        self.ran.append(job.fingerprint)
        return self._pool.submit(self._run, job)

    def _run(self, job: WorkerJob) -> Outcome:
        time.sleep(0.02)
        if job.fingerprint.startswith("x"):
            raise RuntimeError("killed")
        if job.fingerprint.startswith("s"):
            self.closed.wait(60)
        return finished(job.fingerprint)

    def ask_to_stop(self) -> None:
        self.asked += 1

    def restart(self) -> None:
        self.restarts, self._dead = self.restarts + 1, False

    def close(self, busy: bool = False) -> None:
        self.closed.set()


def test_every_job_has_one_outcome_though_workers_die():
    workers = [ThreadWorker(), ThreadWorker()]
    outcomes = list(run_jobs(workers, [worker_job(name) for name in ("a", "x1", "b", "x2", "c")], 1.0))
    assert {each.fingerprint: each.status for each in outcomes} == dict.fromkeys("abc", Status.finished) | {
        "x1": Status.died,
        "x2": Status.died,
    }
    assert sum(worker.restarts for worker in workers) == 2


def test_worker_that_died_between_jobs_is_replaced_before_it_gets_a_job():
    worker = ThreadWorker(dead=True)
    assert [each.status for each in run_jobs([worker], [worker_job("a")], 1.0)] == [Status.finished]
    assert worker.restarts == 1


def test_each_worker_keeps_its_base_model_as_long_as_there_is_work_for_it():
    workers = [ThreadWorker(), ThreadWorker()]
    list(run_jobs(workers, [worker_job(f"{model}{n}", model) for model in "ab" for n in range(4)], 1.0))
    assert sorted("".join(name[0] for name in worker.ran) for worker in workers) == ["aaaa", "bbbb"]


def test_worker_in_the_middle_of_a_job_is_ended_when_the_sweep_is():
    workers = [ThreadWorker(), ThreadWorker()]
    outcomes = run_jobs(workers, [worker_job(name) for name in "asb"], 0.0)
    assert next(outcomes).fingerprint == "a"
    outcomes.close()
    assert [worker.closed.is_set() for worker in workers if "s" in worker.ran] == [True]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_every_running_worker_is_asked_to_stop_whoever_stopped_the_command(stop):
    """The terminal may have told them, or not (a supervisor, timeout, an IDE): asked twice is as once."""
    workers = [ThreadWorker(), ThreadWorker()]
    outcomes = run_jobs(workers, [worker_job(name) for name in "ast"], 0.0)
    next(outcomes)
    with pytest.raises(signals.Interrupted):
        outcomes.throw(signals.Interrupted(stop))
    assert sorted(worker.asked for worker in workers if "s" in worker.ran) == [1]


def test_a_second_stop_ends_workers_at_once(monkeypatch):
    workers = [ThreadWorker(), ThreadWorker()]
    outcomes = run_jobs(workers, [worker_job(name) for name in "asb"], 60.0)
    next(outcomes)

    def second(*_, **__):
        raise signals.Interrupted(signal.SIGINT)

    monkeypatch.setattr(base, "wait", second)
    with pytest.raises(signals.Interrupted):
        outcomes.throw(signals.Interrupted(signal.SIGINT))
    assert [worker.closed.is_set() for worker in workers if "s" in worker.ran] == [True]


def test_reason_of_a_death_names_the_signal():
    error = RuntimeError("A worker stopped. The exit codes of the workers are {SIGKILL(-9)}\nDetails follow")
    assert reason_of_death(error) == "its process died (SIGKILL(-9)): killed, or out of memory"


def test_launcher_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(ConfigFault, match="pip install ray"):
        Ray(address=None, num_cpus=1, num_gpus=None, max_workers=None).check()


@pytest.mark.parametrize("name", ["joblib", "ray", pytest.param("slurm", marks=pytest.mark.linux)])
def test_preset_names_every_setting_of_its_launcher(name):
    preset = OmegaConf.load(CONF / "hydra" / "launcher" / f"{name}.yaml")
    launcher = instantiate(preset.engine)
    if find_spec({"slurm": "submitit"}.get(name, name)):
        launcher.check()


def test_launchers_that_start_processes_are_refused_under_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigFault, match=r"hydra/launcher starts its own processes, but torchrun .*WORLD_SIZE=2"):
        base.refuse_under_torchrun("hydra/launcher")
