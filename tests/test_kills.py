"""A sweep that is killed at random moments and rerun ends like one that was never killed.

By default there are a few kills; ``HARNESS_KILLS=20 scripts/test tests/test_kills.py`` runs more.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.record import store
from tests.support.paths import ROOT
from tests.support.runs import overrides, records_of, write_rows

KILLS = int(os.environ.get("HARNESS_KILLS", "2"))
SEED = int(os.environ.get("HARNESS_KILL_SEED", "0"))
GRID = ["peft=lora,ia3,prompt_tuning,adalora", "seed=0,1,2"]
RUNS = 12
COMPARED = ("scores", "audit", "rows", "parameters", "adapter", "plan", "seeds")


@pytest.fixture(scope="module")
def words(random_qwen2, tmp_path_factory):
    rows = write_rows(tmp_path_factory.mktemp("rows"))

    def of(runs_dir: Path) -> list[str]:
        small = ["trainer.max_steps=30", "trainer.checkpoint_steps=4", "trainer.evaluations=2"]
        return ["-m", *overrides(random_qwen2, rows, runs_dir), *small, *GRID]

    return of


def start_command(words: list[str], folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the whole tree can be killed
    )


def finished(runs_dir: Path) -> dict[str, dict]:
    """Attempt and end time of every finished record, by fingerprint."""
    ends = {}
    for path in runs_dir.glob(f"*/{store.RECORD_NAME}"):
        kept = json.loads(path.read_text(encoding="utf-8"))  # a torn file does not parse
        if kept["status"] == "finished":
            ends[kept["fingerprint"]] = {"attempt": kept["attempt"], "finished": kept["finished"]}
    return ends


def weights(runs_dir: Path, fingerprint: str) -> bytes:
    return (runs_dir / fingerprint / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.posix
def test_sweep_killed_at_random_moments_ends_like_one_that_was_not(words, tmp_path):
    alone = start_command(words(tmp_path / "alone"), tmp_path)
    started = time.monotonic()
    assert alone.wait(600) == 0, alone.stderr.read()
    whole_s = time.monotonic() - started
    moments = random.Random(SEED)
    runs_dir, before = tmp_path / "runs", {}
    for _ in range(KILLS):
        # From its start on, so that kills fall before, during and between the runs.
        process = start_command(words(runs_dir), tmp_path)
        try:
            process.wait(moments.uniform(0.2, 0.6) * whole_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        after = finished(runs_dir)
        assert before.items() <= after.items()  # nothing finished is lost, or trained to completion twice
        before = after
    last = start_command(words(runs_dir), tmp_path)
    assert last.wait(600) == 0, last.stderr.read()
    assert before.items() <= finished(runs_dir).items()
    expected, got = records_of(tmp_path / "alone"), records_of(runs_dir)
    assert len(expected) == RUNS
    assert got.keys() == expected.keys()
    for fingerprint, kept in got.items():
        for key in COMPARED:
            assert kept[key] == expected[fingerprint][key], (fingerprint, key)
        for key in ("optimizer_steps", "tokens", "best_step", "curve", "validation"):
            assert kept["training"][key] == expected[fingerprint]["training"][key], (fingerprint, key)
        assert weights(runs_dir, fingerprint) == weights(tmp_path / "alone", fingerprint)
        left = {path.name for path in (runs_dir / fingerprint).iterdir()}
        assert not left & {"checkpoints", "scratch"}, left
