"""What a newcomer does: install the wheel, type ``peft-harness demo`` in an empty folder, look at the page."""

import re
import time
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM, opened
from tests.support.wheel import installed_wheel, run_installed

pytest.importorskip("hatchling", reason="builds the wheel; pip install 'peft-harness[dev]' has it")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # about 80 s of one core, of which the trainings take 60
def test_the_demo_from_the_wheel_ends_in_a_page(tmp_path):
    program = str(installed_wheel(tmp_path / "fresh") / "peft-harness")
    here = tmp_path / "empty"
    here.mkdir()
    shown = run_installed(here, program, "demo", "--no-open")
    assert "6 cells, 4 runs: 4 finished" in shown
    assert [path.name for path in here.iterdir()] == ["runs"]
    [page] = re.findall(r"^the page of these runs: (.*)$", shown, re.MULTILINE)
    assert Path(page).is_relative_to(here / "runs")
    assert len(re.findall(r"^    peft-harness ", shown, re.MULTILINE)) == 3

    began = time.monotonic()
    assert "6 cells, 4 runs: 4 reused" in run_installed(here, program, "demo", "--no-open")
    assert time.monotonic() - began < 60, "nothing is trained again"
    if CHROMIUM is not None:
        with opened(Path(page)) as browser:
            browser.wait("document.querySelectorAll('table tbody tr').length >= 4")
            assert browser.requests == browser.messages == []
