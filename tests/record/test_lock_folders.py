"""The numbered folders of a lock: one process makes a number, and nothing of killed ones stays."""

import os
import time

from harness.record import lock_folders
from harness.record.lock_owners import this_process
from harness.record.locks import take_lock


def test_a_number_is_made_once(tmp_path):
    first, second = this_process("first", 15.0, 120.0), this_process("second", 15.0, 120.0)
    assert lock_folders.make_number(tmp_path / "1", first)
    assert not lock_folders.make_number(tmp_path / "1", second)
    assert lock_folders.token_of(tmp_path / "1") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_the_highest_number_counts_and_no_folder_is_a_free_lock(tmp_path):
    assert lock_folders.read_highest(tmp_path / "absent").free
    for number in (1, 2, 10):
        lock_folders.make_number(tmp_path / str(number), this_process(f"t{number}", 15.0, 120.0))
    (tmp_path / "stray").mkdir()
    seen = lock_folders.read_highest(tmp_path)
    assert (seen.number, seen.free, seen.owner["token"]) == (10, False, "t10")
    lock_folders.give_back(tmp_path / "10", "other")
    assert not lock_folders.read_highest(tmp_path).free
    lock_folders.give_back(tmp_path / "10", "t10")
    assert lock_folders.read_highest(tmp_path).free


def test_leftovers_of_killed_takers_are_removed_after_an_hour(tmp_path):
    for name, age in (("old", 4000), ("young", 0)):
        path = tmp_path / "lock" / f".new-{name}"
        path.mkdir(parents=True)
        (path / "owner").write_text("{}")
        os.utime(path, (time.time() - age,) * 2)
    with take_lock(tmp_path):
        assert sorted(path.name for path in (tmp_path / "lock").iterdir()) == [".new-young", "1"]
