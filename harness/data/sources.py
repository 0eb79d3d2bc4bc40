"""Where rows come from: local files, a folder, the shipped data, or a hub name; and their content hashes."""

import hashlib
import os
import re
from pathlib import Path

from harness.config.schema import Data
from harness.data.formats import PARSERS
from harness.data.splits import SPLITS
from harness.errors import DataFault
from harness.record.files import file_sha256
from harness.shipped import shipped_folder


def data_sha256(data: Data) -> str | None:
    """SHA-256 of the local data files; None for a hub name.

    For one file it is what ``sha256sum`` shows; for several, the hash of their ``split:sha256`` lines. Raises
    DataFault for a missing file.
    """
    place = locate_data(data.path)
    if place is None:
        return None
    hashes = {split: _sha256(file) for split, file in split_files(place, data).items()}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{split}:{sha256}\n" for split, sha256 in hashes.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def text_sha256(path: str) -> str:
    """SHA-256 of the file that ``scoring.forgetting`` names. Raises DataFault if it is missing."""
    place = locate_data(path, "scoring.forgetting")
    if place is None:
        raise DataFault(f"scoring.forgetting={path}: no such file; correct the path, or set it to null")
    return _sha256(place)


def locate_data(path: str, key: str = "data.path") -> Path | None:
    """The file or folder that ``path`` refers to; None when it can only be a hub name.

    Searched in the working folder, then in the data that the project ships (``medicine``). Raises DataFault, naming
    ``key``, for a path that is missing here and cannot be a hub name either.
    """
    # os.path, not Path: an impossible name (too long, a NUL in it, an unknown ~user) counts as missing.
    local = Path(os.path.expanduser(path))
    for place in (local, shipped_folder("data") / local):
        if path and os.path.exists(place):
            return place
    is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", path, re.ASCII) is not None
    if is_name and len(path) <= 96 and Path(path).suffix.lower() not in PARSERS:
        return None
    where = f"looked in {Path.cwd()} and {shipped_folder('data')}"
    raise DataFault(f"{key}={path!r}: no such file or folder ({where}); correct the path")


def _sha256(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as fault:
        raise DataFault(f"data file {file}: {fault.strerror or fault}; check the path") from fault


def split_files(place: Path, data: Data) -> dict[str, Path]:
    """The file of each split that the configuration names; ``train`` always has one."""
    names = {name: getattr(data.splits, name) for name in SPLITS if getattr(data.splits, name) is not None}
    held_out = [name for name in names if name != "train"]
    if not place.is_dir():
        if held_out:
            raise DataFault(
                f"data.splits.{held_out[0]}={names[held_out[0]]}: data.path={data.path} is a single file;"
                f" set data.splits.{held_out[0]}=null (data.fractions then cuts it from the file), or set"
                " data.path to the folder"
            )
        return {"train": place}
    if "train" not in names:
        inside = _data_files(place)
        if len(inside) != 1:
            raise DataFault(
                f"data.splits.train=null: the folder data.path={data.path} holds {len(inside)} data files"
                f" ({', '.join(inside[:5]) or 'none'}); name the training file"
            )
        names = {"train": inside[0], **names}
    return {split: _inside(place, name, split) for split, name in names.items()}


def _data_files(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if Path(name).suffix.lower() in PARSERS)
    except OSError as fault:
        raise DataFault(f"data.path={folder}: {fault.strerror or fault}; make the folder readable") from fault


def _inside(folder: Path, name: str, split: str) -> Path:
    """``name`` in ``folder``; its ending may be left out if only one file matches."""
    candidates = [folder / name] if Path(name).suffix.lower() in PARSERS else []
    candidates += [folder / f"{name}{ending}" for ending in PARSERS]
    present = [file for file in candidates if os.path.isfile(file)]
    if len(present) == 1:
        return present[0]
    state = f"matches {', '.join(file.name for file in present)}" if present else f"is not a file in {folder}"
    raise DataFault(f"data.splits.{split}={name} {state}; give the full name of a file in that folder")
