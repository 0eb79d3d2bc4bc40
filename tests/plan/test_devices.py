"""Devices by name and by description."""

import pytest

from harness.plan.devices import DEVICES, device_faults, dtype_on, read_device


def test_named_and_described_devices_are_read():
    assert read_device("h100") is DEVICES["h100"]
    found = read_device({"memory_gib": 24, "tflops": {"bfloat16": 70}, "devices": 4, "utilization": 0.5})
    assert (found.memory, found.count) == (24 << 30, 4)
    assert found.flops_per_s("bfloat16") == 35e12
    assert found.usable < found.memory


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("h1000", "plan.device=h1000 is unknown; choose here or one of h200"),
        ({"tflops": {"float32": 1}}, "plan.device.memory_gib is missing"),
        ({"memory_gib": -1, "tflops": {"float32": 1}}, "plan.device.memory_gib=-1 must be a number above 0"),
        ({"memory_gib": 8, "tflops": 70}, "plan.device.tflops=70 must give a throughput by dtype"),
        ({"memory_gib": 8, "tflops": {"float8": 1}}, "plan.device.tflops.float8=1 is unknown"),
        ({"memory_gib": 8, "tflops": {"float32": "x"}}, "plan.device.tflops.float32=x must be a number above 0"),
        ({"memory_gib": 8, "tflops": {"float32": 1}, "cores": 2}, "plan.device.cores=2 is unknown"),
        ({"memory_gib": 8, "tflops": {"float32": 1}, "utilization": 2}, "utilization=2 must be at most 1"),
        ({"memory_gib": 8, "tflops": {"float32": 1}, "devices": 1.5}, "devices=1.5 must be a whole number"),
    ],
)
def test_what_is_wrong_with_a_device_is_said(given, words):
    assert any(words in fault for fault in device_faults(given))


@pytest.mark.parametrize("given", [None, "here", *DEVICES, {"memory_gib": 8, "tflops": {"float32": 1}}])
def test_good_devices_have_no_faults(given):
    assert list(device_faults(given)) == []


def test_auto_means_what_the_device_computes_best():
    assert dtype_on("h100", "auto") == "bfloat16"
    assert dtype_on("t4", "auto") == "float16"
    assert dtype_on("h100", "float32") == "float32"
    assert dtype_on("here", "auto") is None
    assert dtype_on(None, "auto") is None
