"""What a plan can be costed for: devices by name, and such as a command describes.

Memory and throughput of the named ones are the vendors' figures for dense products; ``utilization`` is the share of it
that training is expected to reach.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
USABLE = 0.92  # of a device's memory: its context, and gaps between blocks, take the rest
UTILIZATION = 0.35  # of the stated throughput, if a device says nothing else
HERE = "here"  # this machine, measured
DTYPES = ("bfloat16", "float16", "float32")
KEYS = ("memory_gib", "tflops", "utilization", "devices")


@dataclass(frozen=True)
class Device:
    """One kind of device, and how many of them there are."""

    name: str
    memory: int  # bytes of one
    tflops: Mapping[str, float]  # by dtype, at most
    utilization: float = UTILIZATION
    count: int = 1

    @property
    def usable(self) -> int:
        """Bytes of one that a run may take."""
        return int(self.memory * USABLE)

    def flops_per_s(self, dtype: str) -> float:
        """Operations a second that training is expected to reach on one."""
        return self.tflops.get(dtype, self.tflops.get("float32", min(self.tflops.values()))) * 1e12 * self.utilization


def _gpu(name: str, gib: float, half: float, single: float, bfloat16: bool = True) -> Device:
    tflops = {"float16": half, "float32": single} | ({"bfloat16": half} if bfloat16 else {})
    return Device(name, int(gib * GIB), tflops)


DEVICES = {
    device.name: device
    for device in (
        _gpu("h200", 141, 989, 67),
        _gpu("h100", 80, 989, 67),
        _gpu("a100", 80, 312, 19.5),
        _gpu("a100_40gb", 40, 312, 19.5),
        _gpu("l40s", 48, 362, 91.6),
        _gpu("a10g", 24, 70, 35),
        _gpu("l4", 24, 121, 30.3),
        _gpu("rtx4090", 24, 165, 82.6),
        _gpu("t4", 16, 65, 8.1, bfloat16=False),
    )
}


def device_faults(given: Any) -> Iterator[str]:
    """What is wrong with ``plan.device``."""
    if given is None or given == HERE or (isinstance(given, str) and given in DEVICES):
        return
    if not isinstance(given, Mapping):
        yield (
            f"plan.device={given} is unknown; choose {HERE} or one of {', '.join(DEVICES)}, or describe it: "
            "plan.device='{memory_gib: 24, tflops: {bfloat16: 70, float32: 35}}'"
        )
        return
    unknown = [str(key) for key in given if key not in KEYS]
    if unknown:
        yield f"plan.device.{unknown[0]}={given[unknown[0]]} is unknown; a device has {', '.join(KEYS)}"
    for key in ("memory_gib", "utilization", "devices"):
        value = given.get(key)
        if key == "memory_gib" and value is None:
            yield "plan.device.memory_gib is missing; give the memory of one device in GiB"
        elif value is not None and not _positive(value):
            yield f"plan.device.{key}={value} must be a number above 0"
    share, count = given.get("utilization"), given.get("devices")
    if share is not None and _positive(share) and share > 1:
        yield f"plan.device.utilization={share} must be at most 1; it is a share of tflops"
    if count is not None and _positive(count) and not isinstance(count, int):
        yield f"plan.device.devices={count} must be a whole number"
    yield from _throughput_faults(given.get("tflops"))


def _throughput_faults(tflops: Any) -> Iterator[str]:
    if not isinstance(tflops, Mapping) or not tflops:
        yield f"plan.device.tflops={tflops} must give a throughput by dtype, such as {{bfloat16: 70, float32: 35}}"
        return
    for dtype, value in tflops.items():
        if dtype not in DTYPES:
            yield f"plan.device.tflops.{dtype}={value} is unknown; the dtypes are {', '.join(DTYPES)}"
        elif not _positive(value):
            yield f"plan.device.tflops.{dtype}={value} must be a number above 0"


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def read_device(given: Any) -> Device:
    """The device that ``plan.device`` names or describes; ``here`` is measured by ``estimate``."""
    if isinstance(given, str):
        return DEVICES[given]
    words = re.sub(r"\.0\b", "", f"{float(given['memory_gib'])} GiB")
    return Device(
        f"a device with {words}",
        int(given["memory_gib"] * GIB),
        {str(dtype): float(value) for dtype, value in given["tflops"].items()},
        float(given.get("utilization") or UTILIZATION),
        int(given.get("devices") or 1),
    )


def dtype_on(given: Any, dtype: str) -> str | None:
    """What ``model.dtype`` means on that device; None: what it means on this machine."""
    if given is None or given == HERE:
        return None
    if dtype != "auto":
        return dtype
    return next(each for each in DTYPES if each in read_device(given).tflops)
