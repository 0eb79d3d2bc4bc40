"""Bundles of a run, a sweep and a claim, made in one checkout and repeated in another after the first has gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.sweeps import needs_tiny

SMALL = (
    *("data.limits.train=16", "data.limits.validation=8", "data.limits.test=8", "trainer.batch_size=4"),
    *("trainer.max_steps=3", "trainer.evaluations=1", "scoring.generation.max_new_tokens=4"),
    *("scoring.forgetting_limit=2", "trainer.threads=1"),
)
CLAIM = ("claim.text=lora > ia3 on loss", "claim.name=first", "claim.rates=[1.0]", "claim.budget.runs=10")


def cloned(target: Path) -> Path:
    """A checkout of what is committed here."""
    command = ["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this is not a git checkout that can be cloned: {done.stderr.strip()}")
    return target


def harness(checkout: Path, *words: str) -> str:
    """What the command prints in that checkout, by its own code."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "harness", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """The second checkout, and the archives that the first has left."""
    place = tmp_path_factory.mktemp("checkouts")
    first = cloned(place / "first")
    harness(first, "-m", "peft=lora,ia3", "sweep.name=mine", *SMALL)
    harness(first, "stage=claim", *CLAIM, *SMALL)
    run = min(file.parent.name for file in first.glob("runs/*/record.json"))
    for name, words in (
        ("run", [f"report.runs=[{run}]"]),
        ("sweep", ["report.sweep=mine"]),
        ("claim", ["bundle.claim=first"]),
    ):
        harness(first, "stage=bundle", *words, f"bundle.path={place / name}.tar.gz")
    first.rename(place / "gone")
    return cloned(place / "second"), place


@pytest.mark.slow
@needs_tiny
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "runs"), [("run", 1), ("sweep", 2), ("claim", 3)])
def test_a_bundle_is_repeated_in_a_second_checkout(second, name, runs):
    checkout, place = second
    target = checkout / "again" / name
    told = harness(
        checkout, "stage=verify", f"bundle.path={place / name}.tar.gz", f"bundle.dir={target}", f"bundle.runs={runs}"
    )
    assert f"{runs} of {runs} repeated run" in told
    result = json.loads((target / "verify.json").read_text())
    assert [each["state"] for each in result["runs"]][:runs] == ["agrees"] * runs
    assert result["versions"] == []
    assert result["code"]["here"] == result["code"]["there"]
    figures = {figure["name"]: figure for each in result["runs"][:runs] for figure in each["figures"]}
    assert figures["after.loss"]["here"] == figures["after.loss"]["there"]
