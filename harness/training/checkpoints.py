"""Checkpoints of one run: each complete or absent, with checksums; a run resumes from the newest valid one.

A checkpoint is a folder ``step-00000120``. It is written under another name, its files are listed with their
SHA-256 in ``manifest.json``, and only then is it renamed, so that a kill at any moment leaves the one before it
intact. A damaged one is set aside as ``step-00000120.corrupt-1`` and reported.
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RunFault, hint_for
from harness.record.files import atomic_write_text, file_sha256, partial_path, replacing, set_aside
from harness.runtime.platform import sync_file

log = logging.getLogger(__name__)


CHECKPOINTS = "checkpoints"  # the folder in a run's


MANIFEST = "manifest.json"


PREFIX = "step-"


TAG = "writing"  # all processes of a run write into one partial folder


KEPT = 2  # because the newest may turn out to be damaged


@dataclass(frozen=True)
class CheckpointSettings:
    """Where a run's checkpoints are and when they are written. A signal to stop always writes one."""

    folder: Path
    code: str  # code version: training by other code is not resumed
    every_s: float | None  # seconds between two checkpoints; None: not by time
    every_steps: int | None  # optimizer steps between two checkpoints; None: not by steps
    pause_after: int | None = None  # evaluations of the validation loss after which training pauses; None: at its end


def write_checkpoint(settings: CheckpointSettings, step: int, write: Callable[[Path], None]) -> Path:
    """Write the checkpoint of ``step`` by ``write``, which fills a folder; keep the newest two.

    Raises:
        RunFault: the disk refuses; earlier checkpoints are intact.
    """
    path = settings.folder / f"{PREFIX}{step:08d}"
    try:
        with replacing(path, TAG) as new:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            write(new)
            files = {path.relative_to(new).as_posix(): _sync_and_hash(path) for path in _files(new)}
            manifest = {"step": step, "code": settings.code, "files": files}
            atomic_write_text(new / MANIFEST, json.dumps(manifest, indent=1))
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        raise RunFault(
            f"{path} cannot be written ({error}). {hint_for(error) or 'free space, or set runs_dir to another disk'}"
        ) from error
    for old in _by_age(settings.folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def partial_folder(settings: CheckpointSettings, step: int) -> Path:
    """Where ``write_checkpoint`` writes the checkpoint of ``step`` until it is complete."""
    return partial_path(settings.folder / f"{PREFIX}{step:08d}", TAG)


def newest_checkpoint(settings: CheckpointSettings) -> Path | None:
    """The newest checkpoint of this code whose files match its manifest, or None.

    Damaged ones are set aside and reported; those of other code are reported and removed.
    """
    for path in reversed(_by_age(settings.folder)):
        manifest, fault = _checked(path)
        if fault is not None:
            aside = set_aside(path)
            log.warning("checkpoint %s is damaged (%s); set aside as %s", path, fault, aside.name)
        elif manifest["code"] != settings.code:
            log.warning("checkpoint %s was written by other code (%s); removed", path, manifest["code"])
            shutil.rmtree(path, ignore_errors=True)
        else:
            return path
    return None


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint, valid or not."""
    return bool(_by_age(folder))


def step_of(path: Path) -> int:
    """Optimizer steps done when the checkpoint was written."""
    return int(path.name.removeprefix(PREFIX))


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run."""
    shutil.rmtree(folder, ignore_errors=True)


def _checked(path: Path) -> tuple[dict, str | None]:
    """The manifest, and what is wrong with the checkpoint, if anything."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        _ = manifest["code"], manifest["step"]
        for name, expected in manifest["files"].items():
            if file_sha256(path / name) != expected:
                return {}, f"checksum mismatch in {name}"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return {}, f"{type(error).__name__}: {error}"
    return manifest, None


def _by_age(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sync_and_hash(path: Path) -> str:
    sync_file(path)
    return file_sha256(path)
