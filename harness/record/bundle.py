"""The archive of some runs: ``bundle.json`` with the checksum of every other member, then records, adapters and more.

bundle.json     what is inside, how and by which code it was made
lock.txt        versions of all installed packages
configs/        the resolved plan of each run, as YAML
runs/           of each run its record, its predictions and its adapter
sweeps/, claims/  the folder of the sweep or claim
report/         the report of these runs
"""

import hashlib
import importlib.metadata
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import DataFault, RunFault, hint_for
from harness.record.files import file_sha256, replacing

MANIFEST = "bundle.json"
LOCK = "lock.txt"
FORMAT = 1


def lock_lines() -> list[str]:
    """``name==version`` of every installed package, in the order of their names."""
    found = {
        str(each.metadata["Name"]).lower(): each.version
        for each in importlib.metadata.distributions()
        if each.metadata["Name"]
    }
    return [f"# Python {platform.python_version()}", *(f"{name}=={found[name]}" for name in sorted(found))]


def changed_versions(lock: Sequence[str]) -> list[str]:
    """How this environment differs from a lock file, one sentence each; packages that it has besides do not count."""
    here = dict(line.split("==", 1) for line in lock_lines() if "==" in line)
    there = dict(line.split("==", 1) for line in lock if "==" in line)
    return [
        f"{name} {here.get(name, 'is missing')} here, {version} there"
        for name, version in there.items()
        if here.get(name) != version
    ]


def write_bundle(target: Path, files: Mapping[str, Path | bytes], manifest: Mapping[str, Any]) -> None:
    """Write the archive; it is complete or absent.

    Args:
        files: by name in the archive, a file on disk or its content.
        manifest: what ``bundle.json`` says besides the checksums.

    Raises:
        RunFault: it cannot be written.
    """
    sums = {
        name: file_sha256(source) if isinstance(source, Path) else hashlib.sha256(source).hexdigest()
        for name, source in files.items()
    }
    head = json.dumps({"format": FORMAT, **manifest, "sha256": sums}, ensure_ascii=False, indent=1) + "\n"
    try:
        with replacing(target) as partial, tarfile.open(partial, "w:gz") as archive:
            _add(archive, MANIFEST, head.encode())
            for name, source in files.items():
                if isinstance(source, Path):
                    archive.add(source, arcname=name, recursive=False, filter=_anonymous)
                else:
                    _add(archive, name, source)
    except OSError as error:
        raise RunFault(
            f"bundle.path={target} cannot be written ({error}); {hint_for(error) or 'name another'}"
        ) from error


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names and numbers of who made it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack_bundle(file: Path, folder: Path) -> dict[str, Any]:
    """Unpack into ``folder``, and return what ``bundle.json`` says.

    Raises:
        DataFault: it is no bundle, is damaged, or holds a member that would lie elsewhere.
    """
    try:
        with tarfile.open(file, "r:*") as archive:
            members = archive.getmembers()
            strange = [each.name for each in members if not each.isfile() or not _stays_inside(each.name)]
            if strange:
                raise DataFault(f"bundle.path={file}: {strange[0]} is not a plain file inside it; make it again")
            archive.extractall(folder, filter="data")
        head = folder / MANIFEST
        manifest: dict[str, Any] = json.loads(head.read_text(encoding="utf-8"))
        sums, kind = dict(manifest["sha256"]), manifest["format"]
    except (OSError, tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataFault(
            f"bundle.path={file} is not an archive of stage=bundle ({type(error).__name__}: {error}); name another"
        ) from error
    if kind != FORMAT:
        raise DataFault(f"bundle.path={file} has format {kind}, and this harness reads {FORMAT}; use a newer harness")
    names = {each.name for each in members} - {MANIFEST}
    if names != set(sums):
        raise DataFault(f"bundle.path={file}: its members are not those that it lists; fetch it again")
    broken = [name for name, digest in sums.items() if file_sha256(folder / name) != digest]
    if broken:
        raise DataFault(f"bundle.path={file}: checksum mismatch in {broken[0]}; fetch it again")
    return manifest


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
