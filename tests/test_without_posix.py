"""A training, a sweep, a resumed run and a report where nothing that only POSIX has is there, as on Windows."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.runs import overrides, write_rows

HIDDEN = ROOT / "tests" / "support" / "without_posix"


def python(folder, *words, code=0, **variables):
    """A command in a process without POSIX."""
    path = os.pathsep.join(map(str, (HIDDEN, ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200", "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_windows_lacks_is_hidden_and_refused_to_the_harness_alone(tmp_path):
    program = """
import os, signal, sys
def refused(action):
    try: action()
    except (ImportError, AttributeError, OSError, AssertionError): return True
assert refused(lambda: os.fork) and refused(lambda: signal.SIGUSR2) and refused(lambda: signal.SIGHUP)
from harness.runtime import platform
assert not platform.POSIX
open("/proc/self/stat").close(); os.kill(os.getpid(), 0)  # not by the harness
asks = {"__name__": "harness.probe", "os": os, "path": sys.argv[1]}
for text in ("os.kill(os.getpid(), 0)", "open('/proc/self/stat')", "os.open(path, os.O_RDONLY)",
             "__import__('fcntl')", "__import__('resource')", "os.fsync(open(path + '/file', 'rb').fileno())"):
    assert refused(lambda: eval(text, asks)), text
"""
    (tmp_path / "file").write_text("x")
    python(tmp_path, "-c", program, str(tmp_path))


# One process for all commands, which imports torch once. The first run is stopped as Ctrl-C does, at a known step.
COMMANDS = """
import json, signal, sys, _thread
from tests.support.runs import command
from harness.training import checkpoints
small, steps = json.loads(sys.argv[1]), ["trainer.max_steps=6", "trainer.checkpoint_steps=2"]
synced, stops = checkpoints.sync_file, [signal.SIGINT]
def sync_file(path):
    if stops: _thread.interrupt_main(stops.pop())
    synced(path)
checkpoints.sync_file = sync_file
sweep = ["-m", "peft=lora,ia3", *small, "sweep.max_hours=1"]
where = [word for word in small if word.startswith("runs_dir=")]
for words in ([*small, *steps], [*small, *steps], sweep, sweep, ["stage=report", *where], ["stage=status", *where]):
    done = command(*words)
    print("=>", json.dumps([done.code, done.out + done.err]))
"""


@pytest.mark.slow
def test_a_stopped_run_resumes_a_sweep_runs_and_a_report_is_written(random_qwen2, tmp_path):
    runs = tmp_path / "runs"
    small = overrides(random_qwen2, write_rows(tmp_path / "rows"), runs)
    shown = python(tmp_path, "-c", COMMANDS, json.dumps(small))
    answers = [json.loads(line.removeprefix("=> ")) for line in shown.splitlines() if line.startswith("=> ")]
    stopped, resumed, swept, reused, reported, status = (text for _, text in answers)
    assert [code for code, _ in answers] == [130, 0, 0, 0, 0, 0], shown
    assert "run the same command again to resume" in stopped
    assert re.search("resuming from the checkpoint at optimizer step [23] of 6", resumed), resumed
    assert "2 cells, 2 runs: 2 finished" in swept
    assert "2 cells, 2 runs: 2 reused" in reused
    assert "report.html" in reported
    assert (runs / "report" / "report.html").is_file()
    assert "2 finished" in status
    records = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("*/record.json")]
    assert sorted((record["status"], record["attempt"]) for record in records) == [
        *(("finished", 1),) * 2,
        ("finished", 2),
    ]
