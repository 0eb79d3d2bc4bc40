"""How many CPU threads a command computes with, and how they wait for each other. Imports no torch.

The number follows from the cores that this process may use (affinity, quota of its control group) and from what
other processes use of them: a thread that shares its core holds up all others at the end of every operation. It is
chosen once per process, because another number gives other last digits.
"""

import math
import os
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

# Waiting threads sleep after a short spin: one that spins takes its core from whatever else runs there, from another
# thread of the same operation, too. OpenMP's names, of the GNU runtime and of Intel's and LLVM's.
WAIT_POLICY = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}

GIVEN = "OMP_NUM_THREADS"  # a number that the user, torchrun or a launcher has chosen

WINDOW_S = 0.3  # over which the use of the cores is measured, at least


@dataclass(frozen=True)
class Threads:
    """A number of threads, and why."""

    count: int
    why: str
    busy: float = 0.0  # cores that others used, if that was measured


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of work so far."""

    at: float
    all: float  # of all processes, on the cores that this one may use
    own: float  # of this process and its children


class _State:
    """Of the process, as the threads are."""

    began: CpuTimes | None = None
    chosen: Threads | None = None


def begin(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set how threads wait, before torch is imported, and begin to measure what other processes use.

    A variable of these that is set already was set for a reason: then none is touched.
    """
    if not any(name in environment for name in WAIT_POLICY):
        environment.update(WAIT_POLICY)
    if _State.began is None:
        _State.began = cpu_times()


def reset() -> None:
    """Forget what was measured and chosen, as in a new process."""
    _State.began = _State.chosen = None


def total() -> Threads:
    """The threads of this command, for all of its workers together; the same at each call."""
    if _State.chosen is None:
        _State.chosen = given() or _measured()
    return _State.chosen


def keep(threads: Threads) -> None:
    """Take what an earlier command of the same sweep has chosen."""
    _State.chosen = threads


def given(environment: Mapping[str, str] = os.environ) -> Threads | None:
    """The number in the environment; None if there is none."""
    text = environment.get(GIVEN, "").partition(",")[0].strip()
    return Threads(int(text), GIVEN) if text.isdecimal() and int(text) > 0 else None


def share(workers: int) -> int:
    """The threads of each of so many workers on this machine."""
    named = given()
    return named.count if named else max(1, total().count // workers)


def for_run(explicit: int | None, kept: int | None) -> Threads:
    """The threads of a run.

    Args:
        explicit: ``trainer.threads``, which always counts.
        kept: of the attempt that this one resumes.
    """
    if explicit is not None:
        return Threads(explicit, "trainer.threads")
    if kept is not None:
        return Threads(kept, "as before it was interrupted")
    named = given()
    return named or Threads(share(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))), total().why)


def _measured() -> Threads:
    cores = usable_cores()
    now = cpu_times()
    if now is None or _State.began is None:
        used, how = _load_average(), "taken by the load average"
    else:
        missing = WINDOW_S - (now.at - _State.began.at)
        if missing > 0:
            time.sleep(missing)
            now = cpu_times() or now
        used, how = used_by_others(_State.began, now), "in use by other processes"
    return choose(cores, used, how)


def choose(cores: float, used: float, how: str = "in use by other processes") -> Threads:
    """One thread for each core that is free, rounded; at least one."""
    count = max(1, math.floor(cores - used + 0.5))
    return Threads(count, f"{cores:g} cores, {used:.1f} of them {how}", busy=used)


def usable_cores() -> float:
    """Cores that this process may use: a number of them, or the quota of its control group if that is less."""
    found = _affinity()
    cores = float(len(found)) if found else float(os.cpu_count() or 1)
    quota = cgroup_quota()
    return cores if quota is None else min(cores, quota)


def _affinity() -> set[int]:
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set()


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of time that the control group and those above it get; None without a limit."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        folder = top / path.lstrip("/")
        for each in (folder, *folder.parents):
            if not each.is_relative_to(top):
                break
            quotas += [quota for quota in (_quota_in(each),) if quota is not None]
    return min(quotas, default=None)


def _quota_in(folder: Path) -> float | None:
    """The quota in this folder, of version 2 or 1 of control groups."""
    try:
        if (folder / "cpu.max").exists():
            quota, _, period = (folder / "cpu.max").read_text(encoding="utf-8").partition(" ")
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def cpu_times(file: Path = Path("/proc/stat")) -> CpuTimes | None:
    """What was used of the cores so far; None if this system does not tell."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        tick = os.sysconf("SC_CLK_TCK")
        polite = os.nice(0) > 0
    except (OSError, ValueError, AttributeError):
        return None
    ours, work = _affinity(), 0
    for line in lines:
        name, *fields = line.split()
        if not name.startswith("cpu") or name == "cpu" or (ours and int(name[3:]) not in ours):
            continue
        values = [int(field) for field in fields[:8]]
        user, nice, system, _, _, irq, softirq, steal = values + [0] * (8 - len(values))
        # Processes of lower priority than ours give way.
        work += user + system + irq + softirq + steal + (nice if polite else 0)
    own = os.times()
    return CpuTimes(time.monotonic(), work / tick, own.user + own.system + own.children_user + own.children_system)


def used_by_others(began: CpuTimes, now: CpuTimes) -> float:
    """Cores that other processes used on average between the two."""
    seconds = max(now.at - began.at, 1e-3)
    return max((now.all - began.all) - (now.own - began.own), 0.0) / seconds


def _load_average() -> float:
    """Where the use of each core is not told: processes that were ready to run, over the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return 0.0
