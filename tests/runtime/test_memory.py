"""The peak of one phase is that phase's own."""

from pathlib import Path
from unittest import mock

import pytest

from harness.runtime import memory

SIZE = 256 * 2**20


def touch(size: int) -> None:
    """Use so many bytes, and give them back."""
    block = bytearray(size)
    block[::4096] = b"\1" * len(block[::4096])


@pytest.mark.skipif(not memory._reset_high_water_mark(), reason="this system cannot reset its high-water mark")
def test_what_one_phase_used_and_freed_does_not_show_in_the_next():
    with memory.peak_memory("cpu") as first:
        touch(SIZE)
    with memory.peak_memory("cpu") as second:
        touch(2**20)
    assert first.kind == second.kind == "process_rss"
    assert first.bytes > second.bytes + SIZE * 0.8


def test_a_peak_that_may_stem_from_an_earlier_phase_is_no_figure(tmp_path):
    with mock.patch.object(memory, "CLEAR_REFS", Path(tmp_path / "absent" / "file")), memory.peak_memory("cpu") as peak:
        touch(2**20)
    assert (peak.bytes, peak.kind) == (None, None)


def test_a_phase_that_fails_is_measured_and_its_error_passes():
    with pytest.raises(ZeroDivisionError), memory.peak_memory("cpu") as peak:
        raise ZeroDivisionError
    assert peak.bytes is None or peak.bytes > 2**20
