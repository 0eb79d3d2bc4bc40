"""The number of threads: from cores, quota and what others use; the same for all of a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runtime import threads
from harness.runtime.threads import CpuTimes, Threads
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a new process without a number in its environment."""
    monkeypatch.delenv(threads.GIVEN, raising=False)
    threads.reset()
    yield
    threads.reset()


@pytest.mark.parametrize(
    ("cores", "used", "count"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 1.0, 1), (2, 2.0, 1), (2, 9.0, 1), (64, 40.2, 24), (1.5, 0.0, 2), (0.5, 0.0, 1)],
)
def test_one_thread_for_each_core_that_is_free(cores, used, count):
    assert threads.choose(cores, used).count == count


def test_the_reason_names_cores_and_use():
    assert threads.choose(2.0, 0.96).why == "2 cores, 1.0 of them in use by other processes"


def stat(folder: Path, *rows: tuple[int, ...]) -> Path:
    file = folder / "stat"
    lines = ["cpu  1 2 3 4 5 6 7 8 0 0", *(f"cpu{n} {' '.join(map(str, row))} 0 0" for n, row in enumerate(rows))]
    file.write_text("\n".join([*lines, "intr 5"]))
    return file


@pytest.mark.linux
def test_use_is_read_for_the_cores_of_this_process_and_its_own_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    tick = os.sysconf("SC_CLK_TCK")
    # user nice system idle iowait irq softirq steal
    busy = [(9 * tick, tick, tick, 5, 5, 0, 0, 0), (99 * tick,) * 8, (0, 0, 0, 5, 5, tick, tick, tick)]
    found = threads.cpu_times(stat(tmp_path, *busy))
    assert found.all == pytest.approx(13)  # without nice, idle and the core in the middle
    monkeypatch.setattr(os, "nice", lambda _: 5)
    assert threads.cpu_times(stat(tmp_path, *busy)).all == pytest.approx(14)  # as polite as others
    assert threads.used_by_others(CpuTimes(0, 10, 1), CpuTimes(2, 14, 3)) == pytest.approx(1.0)
    assert threads.used_by_others(CpuTimes(0, 10, 1), CpuTimes(2, 10, 3)) == 0.0


@pytest.mark.posix
def test_a_system_that_does_not_tell_has_its_load_average(tmp_path, monkeypatch):
    assert threads.cpu_times(tmp_path / "none") is None
    monkeypatch.setattr(threads, "cpu_times", lambda: None)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4.0)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.9, 0.0, 0.0))
    assert threads.total() == Threads(1, "4 cores, 2.9 of them taken by the load average", 2.9)


def group(root: Path, own: Path, entry: str, **files: str) -> float | None:
    own.write_text(f"{entry}\n")
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return threads.cgroup_quota(root, own)


def test_the_quota_of_a_control_group_is_that_of_the_tightest_above_it(tmp_path):
    root, own = tmp_path / "fs", tmp_path / "own"
    (root / "a" / "b").mkdir(parents=True)
    assert group(root, own, "0::/a/b") is None
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert threads.cgroup_quota(root, own) == 1.5
    (root / "a" / "b" / "cpu.max").write_text("50000 100000\n")
    assert threads.cgroup_quota(root, own) == 0.5


def test_the_first_version_of_control_groups_is_read_too(tmp_path):
    root, own = tmp_path / "fs", tmp_path / "own"
    folder = root / "cpu" / "job"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("200000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert group(root, own, "3:memory:/job\n4:cpu,cpuacct:/job") == 2.0
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads.cgroup_quota(root, own) is None
    assert threads.cgroup_quota(root, tmp_path / "none") is None


def test_usable_cores_are_the_fewer_of_both(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 2.5)
    assert threads.usable_cores() == 2.5
    monkeypatch.setattr(threads, "cgroup_quota", lambda: None)
    assert threads.usable_cores() == 4


def test_the_number_is_measured_once(monkeypatch):
    answers = iter([Threads(3, "first"), Threads(1, "later")])
    monkeypatch.setattr(threads, "choose", lambda *_: next(answers))
    monkeypatch.setattr(threads, "WINDOW_S", 0.0)
    threads.begin({})
    assert [threads.total().count for _ in range(3)] == [3, 3, 3]
    assert threads.share(2) == 1
    threads.keep(Threads(8, "kept"))
    assert (threads.total().count, threads.share(3), threads.share(99)) == (8, 2, 1)


def test_a_given_number_counts_before_a_measured_one(monkeypatch):
    monkeypatch.setenv(threads.GIVEN, "3,1")
    assert threads.total() == Threads(3, "OMP_NUM_THREADS")
    assert threads.share(4) == 3
    for text in ("", "many", "0"):
        monkeypatch.setenv(threads.GIVEN, text)
        assert threads.given() is None


def test_what_counts_for_a_run(monkeypatch):
    threads.keep(Threads(4, "measured"))
    assert threads.for_run(None, None) == Threads(4, "measured")
    assert threads.for_run(None, 2).count == 2  # of the attempt that it resumes
    assert threads.for_run(1, 2) == Threads(1, "trainer.threads")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert threads.for_run(None, None).count == 2
    monkeypatch.setenv(threads.GIVEN, "7")
    assert threads.for_run(None, None).count == 7
    assert threads.for_run(None, 2).count == 2


def test_threads_wait_asleep_unless_somebody_chose_how():
    environment: dict[str, str] = {}
    threads.begin(environment)
    assert environment == threads.WAIT_POLICY
    chosen = {"KMP_BLOCKTIME": "200"}
    threads.begin(chosen)
    assert chosen == {"KMP_BLOCKTIME": "200"}


def test_the_command_sets_it_before_torch_is_imported():
    code = (
        "import os, sys\nimport harness.cli\nfrom harness.__main__ import main\nseen = []\n"
        "harness.cli.start = lambda _: seen.append((os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules))\n"
        "main()\nassert seen == [('PASSIVE', False)], seen"
    )
    environment = {key: value for key, value in os.environ.items() if key not in threads.WAIT_POLICY}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode == 0
