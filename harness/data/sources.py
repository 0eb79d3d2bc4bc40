"""Where rows come from: local files, a folder, the shipped data, or a hub name; and their content hashes."""

import fnmatch
import hashlib
import os
import re
from pathlib import Path

from harness.config.schema import Data, RowFormat
from harness.data.formats import ending, is_data_file, parsers
from harness.data.packed import inner_name
from harness.data.splits import SPLITS
from harness.errors import DataFault
from harness.record.files import file_sha256
from harness.runtime.terminal import first_of
from harness.shipped import shipped_folder

LISTED = 8  # files of a folder that a message names


def data_sha256(data: Data) -> str | None:
    """SHA-256 of the local data files; None for a hub name.

    For one file it is what ``sha256sum`` shows; for several, the hash of their ``split:sha256`` lines. Raises
    DataFault for a missing file.
    """
    place = locate_data(data.path)
    if place is None:
        return None
    hashes = [(split, _sha256(file)) for split, files in split_files(place, data).items() for file in files]
    if len(hashes) == 1:
        return hashes[0][1]
    lines = "".join(f"{split}:{sha256}\n" for split, sha256 in hashes)
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
    if is_name and len(path) <= 96 and ending(path) not in parsers(RowFormat.alpaca):
        return None
    where = f"looked in {Path.cwd()} and {shipped_folder('data')}"
    raise DataFault(f"{key}={path!r}: no such file or folder ({where}); correct the path")


def _sha256(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as fault:
        raise DataFault(f"data file {file}: {fault.strerror or fault}; check the path") from fault


def split_files(place: Path, data: Data) -> dict[str, tuple[Path, ...]]:
    """The files of each split that the configuration names; ``train`` always has one."""
    names = {name: getattr(data.splits, name) for name in SPLITS if getattr(data.splits, name) is not None}
    held_out = [name for name in names if name != "train"]
    if not place.is_dir():
        if held_out:
            raise DataFault(
                f"data.splits.{held_out[0]}={names[held_out[0]]}: data.path={data.path} is a single file;"
                f" set data.splits.{held_out[0]}=null (data.fractions then cuts it from the file), or set"
                " data.path to the folder"
            )
        return {"train": (place,)}
    _refuse_saved_by_datasets(place, data)
    present = _data_files(place, data.format)
    found = {
        split: tuple(place / file for file in _named(present, place, name, split, data))
        for split, name in names.items()
    }
    if "train" not in found:
        found = {"train": tuple(place / file for file in _only_split(present, place, data)), **found}
    return found


def _refuse_saved_by_datasets(folder: Path, data: Data) -> None:
    """Its rows are in Arrow files of one library's own layout."""
    splits = (folder / "dataset_dict.json").exists()
    if splits or ((folder / "state.json").exists() and (folder / "dataset_info.json").exists()):
        part = "['train']" if splits else ""
        raise DataFault(
            f'data.path={data.path} is a folder of datasets.save_to_disk; write its rows to a file: python -c "import'
            f" datasets; datasets.load_from_disk('{data.path}'){part}.to_json('rows.jsonl')\""
        )


def _data_files(folder: Path, format: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as fault:
        raise DataFault(f"data.path={folder}: {fault.strerror or fault}; make the folder readable") from fault
    return [name for name in names if is_data_file(name, format) and os.path.isfile(folder / name)]


# How several programs number the parts of one split: train-00000-of-00002.parquet.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<rest>(-[0-9a-f]{16})?\..+)")


def _only_split(present: list[str], folder: Path, data: Data) -> list[str]:
    """The one file of a folder, or the parts of the one split that it holds."""
    if not present:
        raise DataFault(f"data.path={data.path}: {_without_rows(folder, data)}")
    families = {_family(name) for name in present}
    if len(families) == 1:
        return _whole(present, data)
    raise DataFault(
        f"data.splits.train=null: the folder data.path={data.path} holds {len(present)} data files "
        f"({first_of(present, LISTED)}); name the training file, for example "
        f"data.splits.train={_example(present)} (* matches several)"
    )


def _example(present: list[str]) -> str:
    """The name to suggest for the training split."""
    first = next((name for name in present if "train" in name.lower()), present[0])
    return _family(first)


def _without_rows(folder: Path, data: Data) -> str:
    """Why a folder has no data file, and what to do."""
    kinds = ", ".join(parsers(data.format))
    inner = sorted(name for name in os.listdir(folder) if (folder / name).is_dir() and not name.startswith("."))
    below = f"; it has the folders {', '.join(inner[:LISTED])}: set data.path to one of them" if inner else ""
    return f"the folder holds no data file ({kinds}){below or '; correct the path'}"


def _family(name: str) -> str:
    """The split of a file: its name, without the number of a part."""
    shard = _SHARD.fullmatch(name)
    return shard["stem"] if shard else name


def _whole(parts: list[str], data: Data) -> list[str]:
    """The parts of a split in order; DataFault if the numbers in their names say that one is missing."""
    shards = [shard for shard in map(_SHARD.fullmatch, parts) if shard]
    if shards:
        count = int(shards[0]["count"])
        missing = sorted(set(range(count)) - {int(shard["number"]) for shard in shards})
        if missing:
            stem = shards[0]["stem"]
            raise DataFault(
                f"data.path={data.path}: part {stem}-{missing[0]:05}-of-{count:05} is missing ({len(shards)} of {count}"
                " parts are there); add it, or give data.path one of the files"
            )
    return parts


def _named(present: list[str], place: Path, name: str, split: str, data: Data) -> list[str]:
    """The files that ``name`` stands for: a file with or without its ending, the parts of a split, or a pattern."""
    if name in present or ("/" in name and os.path.isfile(place / name)):
        return [name]
    found = [file for file in present if name in (inner_name(file), Path(inner_name(file)).stem)]
    if len(found) > 1:
        raise DataFault(
            f"data.splits.{split}={name} matches {', '.join(found[:LISTED])}; give the full name of a file there"
        )
    found = found or [file for file in present if _family(file) == name]
    found = found or [file for file in present if "*" in name and fnmatch.fnmatchcase(file, name)]
    if not found:
        there = ", ".join(present[:LISTED]) or "none"
        raise DataFault(
            f"data.splits.{split}={name} is not a file in {data.path}; give the full name of a file in that folder "
            f"(its data files: {there})"
        )
    return _whole(found, data) if all(map(_SHARD.fullmatch, found)) else found
