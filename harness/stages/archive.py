"""stage=archive: move the chosen runs out of their folder, or delete them with confirm=true."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import ConfigFault, RunFault, raise_together
from harness.plan.spec import Options
from harness.record import locks
from harness.record.files import remove
from harness.report.choose import FoundRun
from harness.report.texts import short_path
from harness.runtime.platform import patiently
from harness.stages.chosen import chosen_runs

log = logging.getLogger(__name__)


def archive_runs(options: Options) -> None:
    """Move the runs that ``report.*`` chooses into ``archive.dir``, or delete them.

    Runs that a process is working on stay. Records of sweeps keep naming their runs.

    Raises:
        ConfigFault: no run is chosen, or ``archive.delete`` was not confirmed; nothing has changed.
        RunFault: some run could not be moved; the others were.
    """
    chosen = chosen_runs(options)
    if options.archive.delete:
        _require_confirmation(chosen.runs, options.confirm)
        _each(chosen.runs, remove, "deleted")
        return
    folder = _folder(options, chosen.folders[0])
    _each(chosen.runs, lambda run: _move(run, folder / run.name), f"moved to {short_path(folder)}")
    log.info("to look at them again: python -m harness stage=report runs_dir=%s", short_path(folder))


def _folder(options: Options, runs_dir: Path) -> Path:
    named = options.archive.dir
    folder = Path(named).expanduser().absolute() if named else runs_dir / "archive"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigFault(
            f"archive.dir={folder} cannot be created ({error.strerror}); set a writable folder"
        ) from error
    return folder


def _require_confirmation(runs: Sequence[FoundRun], confirmed: bool) -> None:
    for run in runs:
        log.info("%s", _described(run))
    if not confirmed:
        raise ConfigFault(
            f"archive.delete=true deletes these {len(runs)} runs for good; nothing is deleted without confirm=true"
        )


def _each(runs: Sequence[FoundRun], do: Callable[[Path], None], done: str) -> None:
    """Do it to the folder of each run under the run's lock; faults are collected."""
    faults, count = [], 0
    for run in runs:
        try:
            lock = locks.take_lock(run.folder)
            if lock is None:
                owner = locks.describe(locks.holder(run.folder) or {})
                faults.append(f"{run.fingerprint} stays where it is: {owner} is working on it")
                continue
            with lock:
                do(run.folder)
            count += 1
        except (OSError, RunFault) as error:
            faults.append(f"{run.fingerprint} stays where it is: {error}")
    log.info("%d of %d runs %s", count, len(runs), done)
    raise_together(faults, RunFault)


def _move(source: Path, target: Path) -> None:
    """Rename the folder, or copy it to another file system; the source goes when the target is complete."""
    if target.exists():
        raise FileExistsError(errno.EEXIST, f"{target} exists already; set another archive.dir")
    try:
        patiently(os.rename, source, target)
        remove(target / "lock")  # ours, which moved with the folder
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        try:
            shutil.copytree(source, partial, ignore=lambda folder, names: ["lock"] if Path(folder) == source else [])
            patiently(os.rename, partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        remove(source)


def _described(run: FoundRun) -> str:
    record = run.record
    tags = f" [{', '.join(record['tags'])}]" if record.get("tags") else ""
    note = f": {record['note']}" if record.get("note") else ""
    return f"{run.fingerprint} {record['method']} {record['status']} {record['started']}{tags}{note}"
