"""The launcher ``packed``: its settings, and a command that is stopped and killed and then ends as without."""

import os
import signal
import sys
import time

import pytest

from harness.errors import ConfigFault
from harness.record import store
from harness.sweep.launchers.packed import Packed
from tests.support.sweeps import SweepCommand, needs_tiny


@pytest.mark.parametrize("wrong", [0, "two", True])
def test_number_of_runs_must_be_a_number(wrong):
    with pytest.raises(ConfigFault, match=r"hydra\.launcher\.engine\.max_runs"):
        Packed(wrong).check()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "greenlet", None)
    monkeypatch.setattr("harness.sweep.launchers.base.find_spec", lambda _: None)
    with pytest.raises(ConfigFault, match="needs greenlet: pip install greenlet"):
        Packed(None).check()


def attempts(runs_dir, fingerprints) -> list[int]:
    found = [store.read_record(runs_dir, each) for each in fingerprints]
    return [record["attempt"] if record else 0 for record in found]


@needs_tiny
@pytest.mark.slow
@pytest.mark.posix
def test_a_command_that_is_stopped_and_then_killed_ends_as_the_other_launchers_do(tmp_path, in_process, fingerprints):
    words = ("hydra/launcher=packed", "hydra.launcher.engine.max_runs=2", "lora.r=2,4")
    runs_dir = tmp_path / "runs"
    for attempt, (signum, code) in enumerate(((signal.SIGTERM, 143), (signal.SIGKILL, -9)), 1):
        sweep = SweepCommand(runs_dir, *words)
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and attempts(runs_dir, fingerprints) != [attempt, attempt]:
            time.sleep(0.05)
        os.kill(sweep.process.pid, signum)
        assert sweep.end()[0] == code
    sweep = SweepCommand(runs_dir, *words)
    code, output = sweep.end()
    assert code == 0, output
    records = sweep.records()
    assert records.keys() == in_process.keys()
    for fingerprint, record in records.items():
        alone = in_process[fingerprint]
        assert record["packed"]["runs"] == 2
        # Shared passes have padding, which a run alone has not on a CPU.
        own, other = (each["audit"] | {"trained_padding_tokens": None} for each in (record, alone))
        assert (own, record["plan"]) == (other, alone["plan"])
        assert record["scores"]["after"] == pytest.approx(alone["scores"]["after"], rel=1e-3)
        for point, other in zip(record["training"]["curve"], alone["training"]["curve"], strict=True):
            assert point == pytest.approx(other, rel=1e-4)
