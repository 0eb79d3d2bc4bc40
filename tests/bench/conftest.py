"""Modules of scripts/bench, imported as running a script there would."""

import importlib
import sys

import pytest

from tests.support.paths import ROOT


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of scripts/bench by name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in ("peers", "peer_bench", "lines", "scoring")]:
        del sys.modules[name]
