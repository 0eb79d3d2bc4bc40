"""The cache of converted models, among several processes and after kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import ModelFault
from harness.models import sources as model_sources
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("own_cache")


WORKER = """
import sys, time
from pathlib import Path
from harness.models import gguf

def convert(file, into, sha256):
    into.mkdir()
    (into / "half").write_text("x")
    with open({log!r}, "a") as log: log.write("converted\\n")
    time.sleep({seconds})
    (into / gguf.ORIGIN).write_text('{{"sizes": {{"half": 1}}}}')

gguf.convert_gguf = convert
print(gguf.converted_folder("dotted.name", "ab" * 32, lambda scratch: Path("any.gguf")))
"""


def start(log: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(log=str(log), seconds=seconds)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_many_processes_convert_once(tmp_path):
    workers = [start(tmp_path / "log", 0.5) for _ in range(3)]
    results = {worker.communicate(timeout=60)[0].strip() for worker in workers}
    assert len(results) == 1
    assert Path(results.pop()).is_dir()
    assert lines(tmp_path / "log") == 1


@pytest.mark.posix
def test_killed_conversion_leaves_nothing_that_looks_complete(tmp_path):
    victim = start(tmp_path / "log", 60)
    while lines(tmp_path / "log") < 1:
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    models = tmp_path / "cache" / "models"
    assert [path for path in models.iterdir() if path.name.startswith(".dotted")]  # what it left
    assert not [path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")]
    out, _ = start(tmp_path / "log", 0).communicate(timeout=60)
    assert (Path(out.strip()) / "half").is_file()
    assert not [path for path in models.iterdir() if path.is_dir() and path.name.startswith(".")]  # cleared away


@pytest.mark.slow
def test_truncated_cache_is_made_again(two_parts, silent_hub):
    whole = model_sources.locate_weights(two_parts).folder / "whole"
    whole.write_bytes(b"first")
    assert (model_sources.locate_weights(two_parts).folder / "whole").read_bytes() == b"first second"


def test_unwritable_cache_names_the_variable(two_parts, silent_hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelFault, match="set PEFT_HARNESS_CACHE to a writable folder"):
        model_sources.locate_weights(two_parts)
