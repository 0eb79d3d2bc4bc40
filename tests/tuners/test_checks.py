"""Settings that the configurations refuse, each with key and value."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from harness.tuners import checks
from harness.tuners.adapter import AdapterConfig
from harness.tuners.diff_layer import DiffPruningConfig
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set exactly one"),
        ({"bottleneck_size": 4, "reduction_factor": 2}, "set exactly one"),
        ({"bottleneck_size": 0}, r"adapter\.bottleneck_size=0 is too small; use at least 1"),
        ({"bottleneck_size": 4, "placement": "serial"}, r"adapter\.placement=serial is unknown; choose one of houlsby"),
        ({"bottleneck_size": 4, "activation": "sine"}, r"adapter\.activation=sine is unknown; choose one of "),
        ({"bottleneck_size": 4, "init_std": -1.0}, r"adapter\.init_std"),
    ],
)
def test_adapter_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        AdapterConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_sparsity": 0.0}, r"diff_pruning\.target_sparsity=0\.0"),
        ({"target_sparsity": 2.0}, r"diff_pruning\.target_sparsity=2\.0"),
        ({"l0_weight": -1.0}, r"diff_pruning\.l0_weight"),
        ({"gate_speed": 0.0}, r"diff_pruning\.gate_speed"),
        ({"stretch_lower": 0.0, "stretch_upper": 1.0}, r"stretch_lower.*; .*stretch_upper"),
    ],
)
def test_diff_pruning_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        DiffPruningConfig(**settings)


@pytest.mark.parametrize(
    ("faults", "settings", "message"),
    [
        (
            checks.adapter_faults,
            {"bottleneck_size": None, "reduction_factor": 0, "placement": "pfeiffer", "init_std": 0.1},
            "adapter.reduction_factor=0 is too small; use at least 1",
        ),
        (
            checks.partial_faults,
            {"last_layers": None, "modules": None, "norms": False},
            "partial selects nothing to train; set partial.last_layers, partial.modules or partial.norms=true",
        ),
        (
            checks.diff_pruning_faults,
            {
                "target_sparsity": float("nan"),
                "l0_weight": 0,
                "stretch_lower": -1.5,
                "stretch_upper": 1.5,
            },
            "diff_pruning.target_sparsity=nan must be a finite number above 0",
        ),
        (
            checks.diff_pruning_faults,
            {
                "target_sparsity": 1.0,
                "l0_weight": 0,
                "stretch_lower": float("-inf"),
                "stretch_upper": 1.5,
            },
            "diff_pruning.stretch_lower=-inf must be a finite number below 0",
        ),
    ],
)
def test_a_sheet_gets_the_same_message_without_a_configuration(faults, settings, message):
    assert list(faults(SimpleNamespace(**settings))) == [message]


def test_checking_settings_imports_neither_torch_nor_peft():
    code = "import sys, harness.tuners.checks; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
