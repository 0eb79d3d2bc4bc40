"""What libraries log at import stays off the console; their errors do not."""

import logging
import subprocess
import sys
import warnings

import pytest

from harness.runtime.notices import quiet_libraries, without_progress_bars
from tests.support.paths import ROOT

LOGGED = "from harness.runtime.notices import quiet_libraries; quiet_libraries(); "


def in_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(("level", "shown"), [("warning", False), ("error", True)])
def test_of_bitsandbytes_only_errors_are_shown(level, shown):
    # The logger that complains on a processor with AVX512-BF16 when the package `kernels` is missing.
    say = f"import logging; logging.getLogger('bitsandbytes.backends.cpu.ops').{level}('no gemm_4bit_forward')"
    assert ("gemm_4bit_forward" in in_fresh_process(LOGGED + say).stderr) == shown


@pytest.mark.slow
def test_importing_peft_prints_nothing():
    assert in_fresh_process(LOGGED + "import peft").stderr == ""


def test_notices_for_developers_are_ignored_and_other_warnings_are_not(monkeypatch):
    monkeypatch.setattr(logging.getLogger("bitsandbytes"), "level", logging.NOTSET)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn("soon gone", FutureWarning, stacklevel=1)
        warnings.warn("look out", UserWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == ["look out"]


@pytest.mark.parametrize("enabled", [True, False])
def test_progress_bars_are_off_inside_and_as_they_were_afterwards(enabled):
    from transformers.utils import logging as bars

    before = bars.is_progress_bar_enabled()
    try:
        (bars.enable_progress_bar if enabled else bars.disable_progress_bar)()
        with without_progress_bars():
            assert not bars.is_progress_bar_enabled()
        assert bars.is_progress_bar_enabled() == enabled
    finally:
        (bars.enable_progress_bar if before else bars.disable_progress_bar)()


def test_loading_bars_are_off_in_a_pipe():
    say = (
        "import os; print(os.environ['HF_HUB_DISABLE_PROGRESS_BARS'], os.environ['HF_DATASETS_DISABLE_PROGRESS_BARS'])"
    )
    assert in_fresh_process(LOGGED + say).stdout.split() == ["1", "1"]
