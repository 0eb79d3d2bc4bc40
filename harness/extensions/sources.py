"""The source files behind an import path, and their hash: edited code makes another experiment.

A module counts with every module that it imports, directly or through others, as long as they belong to its own
top-level package or lie outside of Python's library and of installed packages. The imports are read from the sources;
nothing is run. What a module imports by a name that it computes, and the data files that it reads, are not seen.
"""

import ast
import hashlib
import importlib.machinery
import importlib.util
import site
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.errors import ConfigFault


@dataclass(frozen=True)
class Code:
    """The source of something that an import path names."""

    path: str  # the import path
    sha256: str  # of all files
    files: dict[str, str]  # SHA-256 of each source file, by the name of its module
    distribution: str | None  # name and version of the installed package; None: it is not installed

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values, as the record keeps them."""
        return {"path": self.path, "sha256": self.sha256, "files": self.files, "distribution": self.distribution}


def code_of(key: str, path: str) -> Code:
    """The source behind an import path.

    Raises:
        ConfigFault: it has no source file.
    """
    module = path.partition(":")[0]
    found = _closure(module)
    if not found:
        raise ConfigFault(f"{key}={path}: {module} has no source file, by which its runs could be told apart; use a "
                          "module that is a .py file")  # fmt: skip
    files = {name: hashlib.sha256(_content(file)).hexdigest() for name, file in sorted(found.items())}
    whole = hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in files.items()).encode()).hexdigest()
    return Code(path, whole, files, _distribution(module.partition(".")[0]))


def _content(file: Path) -> bytes:
    """Without what a checkout may change."""
    return file.read_bytes().replace(b"\r\n", b"\n")


def _closure(start: str) -> dict[str, Path]:
    """Source files by module: ``start``, its packages, and what they import of the user's own."""
    top = start.partition(".")[0]
    found: dict[str, Path] = {}
    waiting = list(_with_parents(start))
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if name in found or file is None or not (name.partition(".")[0] == top or _is_own(file)):
            continue
        found[name] = file
        if file.suffix == ".py":
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            for imported in _imports(file, package):
                waiting += _with_parents(imported)
    return found


def _with_parents(name: str) -> Iterator[str]:
    """``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _imports(file: Path, package: str) -> Iterator[str]:
    """Names that may be modules, of every import statement in a file."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # importing it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            above = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source:
                yield source
            yield from (f"{source}.{alias.name}" if source else alias.name for alias in node.names)


@cache
def module_file(name: str) -> Path | None:
    """The file of a module, found without importing anything; None if there is none."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    for depth in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        places = list(spec.submodule_search_locations)
        spec = importlib.machinery.PathFinder.find_spec(".".join([top, *rest[: depth + 1]]), places)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin)


@cache
def _library_folders() -> tuple[Path, ...]:
    """Folders of Python's own library, of installed packages and of the harness."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [*(sysconfig.get_paths()[name] for name in names), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(path).resolve() for path in paths)


def _is_own(file: Path) -> bool:
    """Whether a file is neither Python's, nor of an installed package, nor of the harness."""
    place = file.resolve()
    harness = Path(__file__).resolve().parents[1]
    return not any(place.is_relative_to(folder) for folder in (*_library_folders(), harness)) and not (
        {"site-packages", "dist-packages"} & set(place.parts)
    )


def _distribution(top: str) -> str | None:
    """Name and version of the distribution that has this top-level module; None if none is installed."""
    for each in metadata.distributions():
        names = (each.read_text("top_level.txt") or "").split()
        if top in names or (each.metadata["Name"] or "").lower().replace("-", "_") == top.lower():
            return f"{each.metadata['Name']} {each.version}"
    return None
