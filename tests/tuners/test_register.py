"""The tuners registered with PEFT."""

from __future__ import annotations

import subprocess
import sys

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

import harness.tuners
from harness.tuners.bitfit import BitFitConfig
from tests.support.paths import ROOT


def test_register_twice_changes_nothing():
    harness.tuners.register()
    before = dict(PEFT_TYPE_TO_CONFIG_MAPPING), list(PeftType)
    harness.tuners.register()
    assert before == (dict(PEFT_TYPE_TO_CONFIG_MAPPING), list(PeftType))
    assert PeftType("BITFIT") is PeftType["BITFIT"] is PeftType.BITFIT
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BITFIT] is BitFitConfig


def test_register_refuses_a_name_that_peft_has_taken(monkeypatch):
    monkeypatch.setitem(harness.tuners.TUNERS, "LORA", ("bitfit", "BitFitConfig", "BitFitModel"))
    with pytest.raises(RuntimeError, match="already has a method LORA"):
        harness.tuners.register()


def test_importing_the_package_imports_neither_torch_nor_peft():
    code = "import sys, harness.tuners; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
