"""Which device ``auto`` means here, found without torch: importing it takes seconds, and a plan is made in none."""

import ctypes
import runpy
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BF16_CAPABILITY = 8  # compute capability (major) of the first GPUs with bfloat16


@dataclass(frozen=True)
class Accelerator:
    """The device that torch would choose."""

    kind: str  # cuda or cpu
    bfloat16: bool = False  # whether a GPU computes in it


@cache
def accelerator() -> Accelerator | None:
    """The device of this machine for this torch; None if that cannot be told without torch (ROCm, no torch)."""
    built = _built_for()
    if built is None or built.get("hip"):
        return None
    if not built.get("cuda"):
        return Accelerator("cpu")
    try:
        return _cuda(int(str(built["cuda"]).partition(".")[0]))
    except (AttributeError, ValueError, ctypes.ArgumentError):
        return None


def _built_for() -> dict[str, Any] | None:
    """What torch was built for, read from its file of versions."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / "version.py"
    try:
        return runpy.run_path(str(file))
    except (OSError, SyntaxError, ImportError):
        return None


def _cuda(release: int) -> Accelerator | None:
    """The first GPU that the driver shows this process; the CPU if it shows none, or is older than torch's CUDA."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Accelerator("cpu")
    version, count, device, major = (ctypes.c_int() for _ in range(4))
    if driver.cuDriverGetVersion(ctypes.byref(version)) or version.value // 1000 < release:
        return Accelerator("cpu")
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return Accelerator("cpu")
    driver.cuDeviceGet(ctypes.byref(device), 0)
    if driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device):  # 75: compute capability, major
        return None
    return Accelerator("cuda", major.value >= BF16_CAPABILITY)
