"""A training, a sweep, a resumed run and a report where nothing that only POSIX has is there, as on Windows."""

import json
import os
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
from importlib import import_module
def refused(action):
    try: action()
    except (ImportError, AttributeError, OSError, AssertionError): return True
for name in ("fcntl", "resource", "termios"): assert refused(lambda: import_module(name)), name
assert refused(lambda: os.fork) and refused(lambda: signal.SIGUSR2) and refused(lambda: signal.SIGHUP)
from harness.runtime import platform
assert not platform.POSIX
open("/proc/self/stat").close(); os.kill(os.getpid(), 0)  # not by the harness
asks = {"__name__": "harness.probe", "os": os, "path": sys.argv[1]}
for text in ("os.kill(os.getpid(), 0)", "open('/proc/self/stat')", "os.open(path, os.O_RDONLY)",
             "os.fsync(open(path + '/file', 'rb').fileno())"):
    assert refused(lambda: eval(text, asks)), text
"""
    (tmp_path / "file").write_text("x")
    python(tmp_path, "-c", program, str(tmp_path))


@pytest.mark.slow
def test_a_run_that_is_stopped_resumes_a_sweep_runs_and_a_report_is_written(random_qwen2, tmp_path):
    runs = tmp_path / "runs"
    small = overrides(random_qwen2, write_rows(tmp_path / "rows"), runs)
    # Stopped by the second checkpoint of the run: what a user's Ctrl-C does, at a known step.
    stop = """
import signal, _thread
from harness.training import checkpoints
write, seen = checkpoints.write_checkpoint, []
def writes(settings, step, make):
    seen.append(step)
    if len(seen) == 1: _thread.interrupt_main(signal.SIGINT)
    return write(settings, step, make)
checkpoints.write_checkpoint = writes
import sys
from harness.training import trainer
for module in list(sys.modules.values()):
    if getattr(module, "write_checkpoint", None) is write: module.write_checkpoint = writes
sys.argv = ["harness", *sys.argv[1:]]
from harness.__main__ import main
main()
"""
    steps = ("trainer.max_steps=6", "trainer.checkpoint_steps=2")
    stopped = python(tmp_path, "-c", stop, *small, *steps, code=130)
    assert "run the same command again to resume" in stopped
    [record] = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("*/record.json")]
    assert record["status"] == "interrupted"
    resumed = python(tmp_path, "-m", "harness", *small, *steps)
    assert "resuming from the checkpoint at optimizer step" in resumed
    [record] = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("*/record.json")]
    assert (record["status"], record["attempt"]) == ("finished", 2)

    swept = python(tmp_path, "-m", "harness", "-m", "peft=lora,ia3", *small, "sweep.max_hours=1")
    assert "2 cells, 2 runs: 2 finished" in swept
    assert "2 reused" in python(tmp_path, "-m", "harness", "-m", "peft=lora,ia3", *small, "sweep.max_hours=1")
    python(tmp_path, "-m", "harness", "stage=report", f"runs_dir={runs}")
    assert (runs / "report" / "report.html").is_file()
    assert "finished" in python(tmp_path, "-m", "harness", "stage=status", f"runs_dir={runs}")
