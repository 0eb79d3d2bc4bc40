"""Which device ``auto`` means here, found without torch: importing it takes seconds, and a plan is made in none."""

import ctypes
import os
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


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, as it answers this process."""

    cuda: int | None  # the newest CUDA that it supports, as 12040 for 12.4
    gpus: int = 0
    capability: int | None = None  # of the first GPU: compute capability, major
    name: str = ""  # of the first GPU
    memory: int = 0  # bytes of the first GPU


@cache
def accelerator() -> Accelerator | None:
    """The device of this machine for this torch; None if that cannot be told without torch (ROCm, no torch)."""
    built = torch_build()
    if built is None or built.get("hip"):
        return None
    if not built.get("cuda"):
        return Accelerator("cpu")
    try:
        return chosen(int(str(built["cuda"]).partition(".")[0]), cuda_driver())
    except (AttributeError, ValueError, ctypes.ArgumentError):
        return None


def chosen(release: int, driver: Driver | None) -> Accelerator | None:
    """The first GPU that the driver shows this process; the CPU if it shows none, or is older than torch's CUDA.

    Args:
        release: of the CUDA that torch is built for: 12.
    """
    if driver is None or driver.cuda is None or driver.cuda // 1000 < release or not driver.gpus:
        return Accelerator("cpu")
    return None if driver.capability is None else Accelerator("cuda", driver.capability >= BF16_CAPABILITY)


def torch_build() -> dict[str, Any] | None:
    """What torch was built for, read from its file of versions."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / "version.py"
    try:
        return runpy.run_path(str(file))
    except (OSError, SyntaxError, ImportError):
        return None


def cuda_driver() -> Driver | None:
    """What the driver says; None if there is none.

    Raises:
        AttributeError: the library lacks a function that every driver has.
    """
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    version, count, device, major = (ctypes.c_int() for _ in range(4))
    if library.cuDriverGetVersion(ctypes.byref(version)):
        return Driver(None)
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return Driver(version.value)
    library.cuDeviceGet(ctypes.byref(device), 0)
    failed = library.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # 75: compute capability, major
    name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    shown = name.value.decode("utf-8", "replace")
    return Driver(version.value, count.value, None if failed else major.value, shown, memory.value)
