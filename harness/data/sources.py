"""Where rows come from: local files, a folder, the shipped data, or a hub name; and their content hashes."""

import hashlib
import os
import re
from pathlib import Path

from harness.config.schema import Data
from harness.data.formats import PARSERS
from harness.data.splits import SPLITS
from harness.errors import DataFault
from harness.shipped import shipped_folder


def data_digest(data: Data) -> str | None:
    """SHA-256 of the bytes of the local data files; None for a hub name.

    One file has the digest that ``sha256sum`` shows; of several, the digest is over ``split:digest`` lines.
    Raises DataFault where a file is missing.
    """
    place = locate_data(data.path)
    if place is None:
        return None
    digests = {split: _sha256(file) for split, file in split_files(place, data).items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{split}:{digest}\n" for split, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def text_digest(path: str) -> str:
    """SHA-256 of the file that ``scoring.forgetting`` names; raises DataFault where it is missing."""
    place = locate_data(path, "scoring.forgetting")
    if place is None:
        raise DataFault(f"scoring.forgetting={path}: no such file; correct the path, or set it to null")
    return _sha256(place)


def locate_data(path: str, key: str = "data.path") -> Path | None:
    """The file or folder that ``path`` means; None when it can only be a hub name.

    Looked for from the working folder, then inside the data that the project ships (``medicine``).
    Raises DataFault for a path that is missing here and is no possible hub name either; it names ``key``.
    """
    # os.path, not Path: an impossible name (too long, a NUL in it, an unknown ~user) is a missing one.
    local = Path(os.path.expanduser(path))
    for place in (local, shipped_folder("data") / local):
        if path and os.path.exists(place):
            return place
    is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", path, re.ASCII) is not None
    if is_name and len(path) <= 96 and Path(path).suffix.lower() not in PARSERS:
        return None
    where = f"looked from {Path.cwd()} and in {shipped_folder('data')}"
    raise DataFault(f"{key}={path!r}: no such file or folder ({where}); correct the path")


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise DataFault(f"data file {file}: {fault.strerror or fault}; check the path") from fault


def split_files(place: Path, data: Data) -> dict[str, Path]:
    """File of each split that the configuration names; ``train`` always has one."""
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
    """``name`` in ``folder``, its ending optional where only one file fits."""
    candidates = [folder / name] if Path(name).suffix.lower() in PARSERS else []
    candidates += [folder / f"{name}{ending}" for ending in PARSERS]
    present = [file for file in candidates if os.path.isfile(file)]
    if len(present) == 1:
        return present[0]
    state = f"fits {', '.join(file.name for file in present)}" if present else f"is no file in {folder}"
    raise DataFault(f"data.splits.{split}={name} {state}; give the full name of a file in that folder")
