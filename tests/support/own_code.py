"""Packages as users write them, in folders of their own."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from harness.scoring import catalog, custom


def write(folder: Path, **files: str) -> Path:
    """Write modules, by their names without ``.py``; ``a__b`` is ``a/b.py``."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    importlib.invalidate_caches()  # Python remembers which files a folder has
    return folder


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules of the folder can be imported within; they and their scores are forgotten afterwards."""
    before = set(sys.modules)
    custom.resolve.cache_clear()
    with mock.patch.object(sys, "path", [str(folder), *sys.path]), mock.patch.dict(catalog.SCORES):
        yield
    custom.resolve.cache_clear()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(folder)):
            del sys.modules[name]
