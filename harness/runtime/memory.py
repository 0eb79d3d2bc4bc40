"""Peak memory of one phase, reset between phases."""

import ctypes
import gc
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CLEAR_REFS = Path("/proc/self/clear_refs")


STATUS = Path("/proc/self/status")


# Limit and use of this process's cgroup, of either version.
CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


@dataclass
class Peak:
    """Highest use during the phase, in bytes, and what was measured (``kind``). Set when the phase ends."""

    bytes: int | None = None
    kind: str | None = None


@contextmanager
def peak_memory(device_type: str) -> Iterator[Peak]:
    """Measure the phase inside ``with``: memory allocated on a GPU, the resident process on a CPU.

    ``bytes`` stays None if the system cannot reset its high-water mark: the peak may be that of an earlier phase.
    """
    measured = Peak()
    if device_type == "cuda":
        import torch

        devices = range(torch.cuda.device_count())  # device_map spreads a model over several
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        try:
            yield measured
        finally:
            measured.bytes = sum(torch.cuda.max_memory_allocated(device) for device in devices)
            measured.kind = "cuda_allocated"
        return
    was_reset = reset_high_water_mark()
    try:
        yield measured
    finally:
        measured.bytes = _high_water_mark() if was_reset else None
        measured.kind = "process_rss" if was_reset else None


def reset_high_water_mark() -> bool:
    """Reset the peak of the resident memory, and return whether that worked: Linux does when 5 is written (proc(5))."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def highest_since_reset(device_type: str) -> int | None:
    """The peak since it was last reset, in bytes; None if it cannot be read."""
    if device_type == "cuda":
        import torch

        return sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
    return _high_water_mark()


def free_bytes(device_type: str) -> int:
    """What more can be allocated now: on the GPU that is in use, or on this machine within the limit of its cgroup."""
    if device_type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no cgroup, or one without a limit ("max")
            free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, and return whether it does (glibc's ``mallopt``).

    It returns large blocks to the system as soon as they are free, and every tensor of a large pass on a CPU then
    begins with page faults: a pass over 4,000 tokens of the embedded model takes a quarter longer.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system, or another C library
        return False
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # malloc.h
    wanted = ((mmap_threshold, 2**30), (trim_threshold, 2**31 - 1), (top_pad, 2**26))
    taken = [bool(mallopt(name, size)) for name, size in wanted]  # each, whatever becomes of the others
    return all(taken)


def _high_water_mark() -> int | None:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:  # another system
        return None
    return int(found[1]) * 1024 if found else None


def ran_out(error: BaseException) -> bool:
    """Whether the error says that the device or the machine ran out of memory."""
    message = str(error).lower()
    known = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
    return isinstance(error, MemoryError) or any(text in message for text in known)


def drop_frames(error: BaseException) -> None:
    """Release what a failed run holds: its error keeps the frames, and they keep the model and the batch.

    Otherwise the runs after one that ran out of memory would run out as well.
    """
    seen = set[int]()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            left += [each.__cause__, each.__context__]
    release_memory()


def release_memory() -> None:
    """Free what nothing refers to any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
