"""One plan, run in a process of its own: on this machine, on another, or in a queue's job.

A worker gets text only and composes the plan itself, so that no model, no configuration object and no code of
ours is pickled. What it leaves behind is the record in ``runs_dir``; its answer says no more than how it went.
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, HeldByAnotherProcess
from harness.pipeline.cache import ProcessCache
from harness.record import provenance, store
from harness.record.files import atomic_write_text
from harness.runtime import memory
from harness.runtime.notices import quiet_libraries

log = logging.getLogger(__name__)


FINISHED, FAILED, DIED, ELSEWHERE, IDLE = "finished", "failed", "died", "elsewhere", "not started"


@dataclass(frozen=True)
class ConfigSource:
    """Where a command's configuration comes from, as text."""

    config_dir: str
    config_name: str
    searchpath: tuple[str, ...]  # further folders: --config-dir and hydra.searchpath
    cwd: str  # relative paths in the configuration count from here


@dataclass(frozen=True)
class Job:
    """One plan of a sweep as a worker gets it."""

    fingerprint: str
    name: str
    model: str  # equal for plans on one base model, which a worker then loads once
    overrides: tuple[str, ...]
    sweep_name: str | None
    source: ConfigSource
    code: str  # code version of the process that started the sweep
    folder: str  # of the sweep: the log of the run goes there
    tries: int | None  # attempts on record when the sweep began
    stop: str | None  # a file; once it is there, no further run starts


@dataclass(frozen=True)
class Outcome:
    """How a run went. ``died``: its process ended without an answer."""

    fingerprint: str
    status: str  # finished, failed, died, elsewhere (another process works on the plan), not started
    message: str
    seconds: float
    answer: str = ""  # "finished by process 4711 on node7", where another process made the result meanwhile


def run_job(job: Job) -> Outcome:
    """Run the job's plan here, or use its finished record. An ``Exception`` becomes a failed outcome.

    Never waits: a plan that another process works on is ``elsewhere``. The same process may be called again:
    runs of one base model share it.
    """
    started, answer = time.monotonic(), ""
    if job.stop and os.path.exists(job.stop):
        return Outcome(job.fingerprint, IDLE, "too many runs have failed", 0.0)
    try:
        with _in_folder(job), _logged(job):
            message, answer = _run(job)
        status = FINISHED
    except HeldByAnotherProcess as error:
        status, message = ELSEWHERE, str(error)
    except Exception as error:
        status, message = FAILED, _in_a_line(error)
        memory.drop_frames(error)  # the same process takes the next job
    return Outcome(job.fingerprint, status, message, time.monotonic() - started, answer)


def _run(job: Job) -> tuple[str, str]:
    """Compose, compare, run; returns what should be said beside "finished", and who else made the result."""
    from dataclasses import replace
    from functools import partial

    from harness.pipeline.run import run
    from harness.plan.read import read_config
    from harness.sweep.cells import Cell, describe_result, run_cell

    owner = provenance.owner()
    log.info("process %s on %s begins: %s", owner["pid"], owner["host"], job.name)
    plan, options = read_config(_compose(job))
    if plan.fingerprint != job.fingerprint:
        raise ConfigFault(
            f"{owner['host']} makes plan {plan.fingerprint} of these overrides, not {job.fingerprint}: "
            f"its files of conf, data or model differ (inputs here: {json.dumps(dict(plan.inputs))}); give every "
            "machine the same files"
        )
    options = replace(options, sweep_name=options.sweep_name or job.sweep_name)
    kept = run_cell(Cell(job.overrides, plan, options, job.tries), partial(run, cache=process_cache()))
    answer = "" if kept["owner"] == owner else describe_result(kept)
    if provenance.code_version() == job.code:
        return "", answer
    return "by other sources than the sweep began with: the next command runs it again", answer


@cache
def process_cache() -> ProcessCache:
    """What the runs of this worker share. Of the process, because launchers call ``run_job`` once per job."""
    return ProcessCache()


def _in_a_line(error: Exception) -> str:
    from harness.config.messages import explain

    return explain(error).removeprefix("error: ").splitlines()[0]


def _compose(job: Job) -> Any:
    from hydra import compose, initialize_config_dir

    from harness.config.compose import register_schema

    register_schema()
    paths = ",".join(json.dumps(path, ensure_ascii=False) for path in job.source.searchpath)
    more = [f"hydra.searchpath=[{paths}]"] if paths else []
    with initialize_config_dir(job.source.config_dir, version_base="1.3"):
        return compose(job.source.config_name, overrides=[*job.overrides, *more])


@contextmanager
def _in_folder(job: Job) -> Iterator[None]:
    """The working folder of the command, and a note who works on this job."""
    before = os.getcwd()
    try:
        os.chdir(job.source.cwd)
    except OSError as error:
        raise ConfigFault(
            f"{job.source.cwd}: {error.strerror} on {provenance.owner()['host']}; start the sweep in a folder that "
            "every machine sees under the same name"
        ) from error
    try:
        atomic_write_text(_owner_file(job), json.dumps(provenance.owner()))
        yield
    finally:
        with suppress(OSError):
            os.chdir(before)


def log_file(job: Job) -> Path:
    """Where a run's notes go: the consoles of several workers would be one jumble."""
    return Path(job.folder) / "logs" / f"{job.fingerprint}.log"


def _owner_file(job: Job) -> Path:
    return Path(job.folder) / "workers" / f"{job.fingerprint}.json"


@contextmanager
def _logged(job: Job) -> Iterator[None]:
    """Everything that the run says goes to its log file."""
    log_file(job).parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("harness")
    before = logger.handlers, logger.level, logger.propagate
    # Line by line: a process that is killed leaves its last words.
    with (
        open(log_file(job), "a", buffering=1, encoding="utf-8") as file,
        redirect_stdout(file),
        redirect_stderr(file),
        warnings.catch_warnings(),
    ):
        quiet_libraries()
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
        try:
            yield
            log.info("finished")
        except HeldByAnotherProcess as error:
            log.info("%s", error)
            raise
        except BaseException:
            log.exception("ended early")
            raise
        finally:
            logger.handlers, logger.propagate = before[0], before[2]
            logger.setLevel(before[1])


def mark_interrupted(job: Job, runs_dir: Path, reason: str) -> None:
    """Mark the record of a job whose process died as interrupted.

    The record's own check needs it to be asked on the same machine; whoever started the worker knows it anyway.
    Left alone is a record that some other process owns.
    """
    try:
        owner = json.loads(_owner_file(job).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    found = store.read_record(runs_dir, job.fingerprint)
    if found is None or found["status"] not in ("running", "interrupted") or found["owner"] != owner:
        return
    hint = f"the same command runs it again; {log_file(job)} has its last words"
    store.write_record(runs_dir, store.as_interrupted(found, reason, hint))
