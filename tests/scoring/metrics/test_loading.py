"""Metric modules load with ``evaluate.load`` from their folders, as anyone would load them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.scoring.compute import metric_folder
from tests.support.paths import ROOT

AS_ANYONE = """
import pathlib, shutil, socket, sys

def refuse(*args, **kwargs):
    raise OSError("network access")
socket.socket.connect = socket.getaddrinfo = refuse

import evaluate
from harness.scoring.catalog import answer_metrics
from harness.scoring.compute import metric_folder

for _ in range(3):
    for name in answer_metrics():
        for path in (metric_folder(name), metric_folder(name) / f"{name}.py"):
            metric = evaluate.load(str(path), keep_in_memory=True)
            assert metric.name == name and metric.description and metric.citation
            result = metric.compute(predictions=["abcd 12"], references=["abcd 12"])
            assert result["signature"] and (name == "bleu" or result[name] > 99.9), result

copy = pathlib.Path(sys.argv[1]) / "exact_match"
shutil.copytree(metric_folder("exact_match"), copy)
one = {"predictions": ["a"], "references": ["a"]}
assert evaluate.load(str(copy)).compute(**one)["exact_match"] == 100
script = copy / "exact_match.py"
script.write_text(script.read_text().replace("inputs.percent(scores)", "inputs.percent(scores) / 2"))
assert evaluate.load(str(copy)).compute(**one)["exact_match"] == 50, "stale module"
"""


@pytest.mark.slow
def test_modules_load_from_their_path_offline_beside_each_other_and_never_stale(tmp_path: Path) -> None:
    """Two processes, one fresh cache, no socket, started outside the checkout."""
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", AS_ANYONE]
    running = [
        subprocess.Popen([*command, str(tmp_path / who)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for who in ("one", "two")
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()


@pytest.mark.slow
def test_missing_harness_is_not_looked_for_under_its_name_in_a_registry(tmp_path: Path) -> None:
    """`pip install harness` would fetch somebody else's package."""
    bare = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    code = f"import evaluate; evaluate.load({str(metric_folder('bleu'))!r})"
    shadow = f"import sys; sys.modules['harness'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", shadow], cwd=tmp_path, env=bare, capture_output=True, check=False)
    assert b"using 'pip install .'" in done.stderr
