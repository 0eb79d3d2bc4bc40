"""One plan, run in a process of its own: on this machine, on another, or in a SLURM job.

A worker gets text only and composes the plan itself, so no model, configuration object or code of ours is pickled.
The result is the record in ``runs_dir``; the outcome says only how the run went.
"""

import json
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigFault, HeldByAnotherProcess, Paused
from harness.extensions import imports
from harness.pipeline.cache import ProcessCache
from harness.record import provenance, store
from harness.record.files import atomic_write_text
from harness.record.redact import RedactedStream
from harness.runtime import memory, signals, threads
from harness.runtime.platform import signal_self
from harness.runtime.terminal import PrintableFormatter
from harness.sweep.cells import Cell
from harness.sweep.claim import run_cell
from harness.sweep.outcome import Outcome, Status, outcome_of_error
from harness.sweep.reuse import describe_result
from harness.sweep.sizes import Sizes

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

STOP_POLL_S = 1.0  # between looks for the file that stops a running job


@dataclass(frozen=True)
class ConfigSource:
    """Where a command's configuration comes from, as text."""

    config_dir: str
    config_name: str
    searchpath: tuple[str, ...]  # further folders: --config-dir and hydra.searchpath
    cwd: str  # relative paths in the configuration start here


@dataclass(frozen=True)
class WorkerJob:
    """One cell as it is sent to a worker."""

    fingerprint: str
    name: str
    model: str  # equal for plans on one base model, which a worker then loads once
    overrides: tuple[str, ...]
    sweep_name: str | None
    source: ConfigSource
    code: str  # code version of the process that started the sweep
    folder: str  # of the sweep: the log of the run is written there
    attempts: int | None  # attempts on record when the sweep began
    stop: str | None  # a file; once it exists, no further run starts
    here: bool = True  # the worker is on the machine that started the sweep
    pins: tuple[str, ...] = ()  # overrides with the commits that the sweep was planned with


def run_job(job: WorkerJob) -> Outcome:
    """Run the job's plan here, or reuse its finished record. An ``Exception`` becomes a failed outcome.

    Never waits: a plan that another process is running is ``held``. The same process may be called again:
    runs on one base model share it.
    """
    started = time.monotonic()
    threads.begin()
    if job.stop and os.path.exists(job.stop):
        return Outcome(job.fingerprint, Status.not_started, "too many runs have failed")
    try:
        with _in_folder(job), _logged(job):
            remark, made_by = run_plan(job)
    except Exception as error:
        memory.drop_frames(error)  # the same process takes the next job
        return outcome_of_error(job.fingerprint, error, time.monotonic() - started)
    return Outcome(job.fingerprint, Status.finished, remark, time.monotonic() - started, made_by)


def run_until_stopped(job: WorkerJob) -> Outcome:
    """``run_job`` in a process that may be told to stop: by SIGTERM, or by the file ``stop_file`` of a command.

    A worker that is told to stop answers with an outcome, and can take another job. The signal of the terminal and
    that of the command may both arrive, in any order.
    """
    try:
        with signals.listening(forwarded=signal.SIGTERM), _heeding_stop_file(job):
            return run_job(job)
    except signals.Interrupted as stop:
        return Outcome(job.fingerprint, Status.died, f"its process was {stop}")


def stop_file(job: WorkerJob) -> Path | None:
    """The file by which a command stops its running jobs that no signal of its reaches: elsewhere, or on Windows."""
    return Path(f"{job.stop}.now") if job.stop else None


def ask_to_stop(job: WorkerJob | None) -> None:
    """Write the stop file of a running job, for workers that no signal reaches."""
    file = stop_file(job) if job else None
    if file is not None:
        with suppress(OSError):
            atomic_write_text(file, "")


@contextmanager
def _heeding_stop_file(job: WorkerJob) -> Iterator[None]:
    """Send this process SIGTERM once the file exists."""
    file, ended = stop_file(job), threading.Event()
    if file is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def watch() -> None:
        while not ended.wait(STOP_POLL_S):
            if file.exists():
                signal_self(signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run_plan(job: WorkerJob) -> tuple[str, str]:
    """Compose the plan, compare its fingerprint and run it.

    Returns:
        A remark on the finished run, and which other process made the result; each may be "".
    """
    from harness.pipeline.run import run
    from harness.plan.read import read_config

    owner = provenance.owner()
    log.info("process %s on %s starts %s", owner["pid"], owner["host"], job.name)
    plan, options = read_config(compose_job(job), job.here, Sizes().of())
    if plan.fingerprint != job.fingerprint:
        raise ConfigFault(
            f"on {owner['host']} these overrides make plan {plan.fingerprint}, not {job.fingerprint}: its files of "
            f"conf, data or model differ (inputs here: {json.dumps(dict(plan.inputs))}); give every machine the "
            "same files"
        )
    options = replace(options, sweep_name=options.sweep_name or job.sweep_name)
    record = run_cell(Cell(job.overrides, plan, options, job.attempts), partial(run, cache=process_cache()))
    made_by = "" if record["owner"] == owner else describe_result(record)
    if provenance.code_version() == job.code:
        return "", made_by
    return "run by other sources than the sweep was started with: the next command runs it again", made_by


@cache
def process_cache() -> ProcessCache:
    """What the runs of this worker share. Of the process, because launchers call ``run_job`` once per job."""
    return ProcessCache()


def compose_job(job: WorkerJob) -> "DictConfig":
    """The configuration of the job's cell."""
    from hydra import compose, initialize_config_dir

    from harness.config.compose import register_schema

    register_schema()
    paths = ",".join(json.dumps(path, ensure_ascii=False) for path in job.source.searchpath)
    more = [f"hydra.searchpath=[{paths}]"] if paths else []
    with initialize_config_dir(job.source.config_dir, version_base="1.3"):
        return compose(job.source.config_name, overrides=[*job.overrides, *job.pins, *more])


@contextmanager
def _in_folder(job: WorkerJob) -> Iterator[None]:
    """Change to the command's working folder and note which process runs this job."""
    before = os.getcwd()
    try:
        os.chdir(job.source.cwd)
        imports.begin(Path(job.source.cwd))  # code that settings name by import path
    except OSError as error:
        raise ConfigFault(
            f"{job.source.cwd}: {error.strerror} on {provenance.owner()['host']}; start the sweep in a folder that "
            "every machine sees under the same name"
        ) from error
    try:
        atomic_write_text(owner_file(job), json.dumps(provenance.owner()))
        yield
    finally:
        with suppress(OSError):
            os.chdir(before)


def log_file(job: WorkerJob) -> Path:
    """The log of a run: several workers would mix their lines on one console."""
    return Path(job.folder) / "logs" / f"{job.fingerprint}.log"


def owner_file(job: WorkerJob) -> Path:
    """The file that names the process that runs this job."""
    return Path(job.folder) / "workers" / f"{job.fingerprint}.json"


@contextmanager
def _logged(job: WorkerJob) -> Iterator[None]:
    """Send everything that the run prints or logs to its log file."""
    log_file(job).parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("harness")
    before = logger.handlers, logger.level, logger.propagate
    # Line by line, so that the lines before a kill are kept.
    with (
        open(log_file(job), "a", buffering=1, encoding="utf-8", errors="backslashreplace") as plain,
        RedactedStream(plain) as file,
        redirect_stdout(file),
        redirect_stderr(file),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # meant for the developers of other packages
        handler = logging.StreamHandler(file)
        handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s"))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
        try:
            yield
            log.info("finished")
        except (HeldByAnotherProcess, Paused) as error:
            log.info("%s", error)
            raise
        except BaseException:
            log.exception("ended early")
            raise
        finally:
            logger.handlers, logger.propagate = before[0], before[2]
            logger.setLevel(before[1])


def mark_interrupted(job: WorkerJob, runs_dir: Path, reason: str) -> None:
    """Mark the record of a job whose process died as interrupted.

    Reading a record detects a dead owner only on the owner's machine; whoever started the worker knows it anyway.
    A record that another process owns is left alone.
    """
    try:
        owner = json.loads(owner_file(job).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    record = store.read_record(runs_dir, job.fingerprint)
    if record is None or record["status"] not in ("running", "interrupted") or record["owner"] != owner:
        return
    hint = f"run the same command again; its last log lines are in {log_file(job)}"
    store.write_record(runs_dir, store.as_interrupted(record, reason, hint))
