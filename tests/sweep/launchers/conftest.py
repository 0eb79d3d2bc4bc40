"""Real sweeps of two runs, for the tests of launchers."""

import pytest

from harness.plan.read import read_config
from tests.support.configs import compose
from tests.support.sweeps import SMALL, SweepCommand


@pytest.fixture(scope="package")
def fingerprints() -> tuple[str, str]:
    """Of lora.r=2 and lora.r=4."""
    first, second = (read_config(compose(*SMALL, f"lora.r={r}"))[0].fingerprint for r in (2, 4))
    return first, second


@pytest.fixture(scope="package")
def in_process(tmp_path_factory) -> dict[str, dict]:
    """Records of lora.r=2,4 as the launcher `basic` leaves them."""
    sweep = SweepCommand(tmp_path_factory.mktemp("basic") / "runs", "lora.r=2,4")
    code, output = sweep.end()
    assert code == 0, output
    return sweep.records()
