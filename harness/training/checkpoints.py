"""Checkpoints of one run: each whole or absent, with checksums; the newest valid one is gone on from.

A checkpoint is a folder ``step-00000120``. It is written under another name, its files are listed with their
SHA-256 in ``manifest.json``, and only then it gets its name, so that a kill at any moment leaves the one
before it. A damaged one is set aside as ``step-00000120.corrupt-1`` and reported.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RunFault, hint_for
from harness.record.files import atomic_write_text, file_sha256, partial_path, replacing, set_aside

log = logging.getLogger(__name__)


MANIFEST = "manifest.json"


PREFIX = "step-"


TAG = "writing"  # all processes of a run write into one partial folder


KEPT = 2  # the newest may turn out damaged


@dataclass(frozen=True)
class CheckpointSettings:
    """Where a run's checkpoints lie and when they are written. A signal to stop writes one in any case."""

    folder: Path
    code: str  # code version: another code's training is not gone on with
    every_s: float | None  # seconds between two checkpoints; None: no such rule
    every_steps: int | None  # optimizer steps between two checkpoints; None: no such rule


def write_checkpoint(keeping: CheckpointSettings, step: int, write: Callable[[Path], None]) -> Path:
    """Write the checkpoint of ``step`` by ``write``, which fills a folder; older ones than two are removed.

    Raises:
        RunFault: the disk refuses; the checkpoints before it stand.
    """
    place = keeping.folder / f"{PREFIX}{step:08d}"
    try:
        with replacing(place, TAG) as new:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            write(new)
            files = {path.relative_to(new).as_posix(): _sync_and_hash(path) for path in _files(new)}
            manifest = {"step": step, "code": keeping.code, "files": files}
            atomic_write_text(new / MANIFEST, json.dumps(manifest, indent=1))
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        raise RunFault(
            f"{place} cannot be written ({error}). {hint_for(error) or 'free space, or set runs_dir to another disk'}"
        ) from error
    for old in _by_age(keeping.folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def partial_folder(keeping: CheckpointSettings, step: int) -> Path:
    """Where ``save`` writes the checkpoint of ``step`` until it is whole."""
    return partial_path(keeping.folder / f"{PREFIX}{step:08d}", TAG)


def newest_checkpoint(keeping: CheckpointSettings) -> Path | None:
    """The newest checkpoint of this code whose files are what its manifest says, or None.

    Damaged ones are set aside and reported; those of other code are reported and removed.
    """
    for place in reversed(_by_age(keeping.folder)):
        manifest, fault = _checked(place)
        if fault is not None:
            aside = set_aside(place)
            log.warning("checkpoint %s is damaged (%s); set aside as %s", place, fault, aside.name)
        elif manifest["code"] != keeping.code:
            log.warning("checkpoint %s was written by other code (%s); removed", place, manifest["code"])
            shutil.rmtree(place, ignore_errors=True)
        else:
            return place
    return None


def step_of(place: Path) -> int:
    """Optimizer steps that the checkpoint stands for."""
    return int(place.name.removeprefix(PREFIX))


def remove_checkpoints(folder: Path) -> None:
    """Forget all checkpoints of a run."""
    shutil.rmtree(folder, ignore_errors=True)


def _checked(place: Path) -> tuple[dict, str | None]:
    """The manifest, and what is wrong with the checkpoint."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        _ = manifest["code"], manifest["step"]
        for name, expected in manifest["files"].items():
            if file_sha256(place / name) != expected:
                return {}, f"{name} is not what was written"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return {}, f"{type(error).__name__}: {error}"
    return manifest, None


def _by_age(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sync_and_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return file_sha256(path)
