"""The peak of one phase is that phase's own."""

import weakref
from pathlib import Path
from unittest import mock

import pytest

from harness.runtime import memory

SIZE = 256 * 2**20


def touch(size: int) -> None:
    """Use that many bytes, and free them."""
    block = bytearray(size)
    block[::4096] = b"\1" * len(block[::4096])


@pytest.mark.skipif(not memory.reset_high_water_mark(), reason="this system cannot reset its high-water mark")
def test_what_one_phase_used_and_freed_does_not_show_in_the_next():
    with memory.peak_memory("cpu") as first:
        touch(SIZE)
    with memory.peak_memory("cpu") as second:
        touch(2**20)
    assert first.kind == second.kind == "process_rss"
    assert first.bytes > second.bytes + SIZE * 0.8


def test_a_peak_that_may_be_of_an_earlier_phase_is_not_given(tmp_path):
    with mock.patch.object(memory, "CLEAR_REFS", Path(tmp_path / "absent" / "file")), memory.peak_memory("cpu") as peak:
        touch(2**20)
    assert (peak.bytes, peak.kind) == (None, None)


def test_a_phase_that_fails_is_measured_and_its_error_passes():
    with pytest.raises(ZeroDivisionError), memory.peak_memory("cpu") as peak:
        raise ZeroDivisionError
    assert peak.bytes is None or peak.bytes > 2**20


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, out):
    assert memory.ran_out(error) is out


def test_frames_of_a_failed_run_release_what_they_hold():
    class Large:
        pass

    def fail():
        held = Large()
        references.append(weakref.ref(held))
        raise ValueError

    references: list[weakref.ref[Large]] = []
    try:
        fail()
    except ValueError as error:
        kept = error
    assert references[0]() is not None
    memory.drop_frames(kept)
    assert references[0]() is None


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    assert memory.keep_freed_memory() in (True, False)

    def missing(_):
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    assert memory.keep_freed_memory() is False


def test_free_memory_is_within_the_limit_of_the_control_group(monkeypatch, tmp_path):
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("1000\n")
    used.write_text("300\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", ((tmp_path / "absent", used), (limit, used)))
    assert memory.free_bytes("cpu") == 700
    limit.write_text("max\n")
    assert memory.free_bytes("cpu") > 10**6


@pytest.mark.skipif(not memory.STATUS.exists(), reason="Linux tells the peak in /proc")
@pytest.mark.linux
def test_the_peak_since_the_reset_can_be_read_at_any_time():
    assert (memory.highest_since_reset("cpu") or 0) > 10**6
