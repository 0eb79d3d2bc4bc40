"""Results travel through an object store, which knows no folders and no locks: docs/object_storage.md.

The store is fsspec's in memory. What is empty does not come back from it, as from a bucket.
"""

import uuid

import fsspec
import pytest

from tests.support.runs import command, overrides, records_of, write_rows

pytestmark = pytest.mark.slow


def through_a_bucket(source, target):
    """Copy a folder of runs into a store and from there to another place, without the folders ``lock``."""
    bucket = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        inside = file.relative_to(source)
        if "lock" not in inside.parts:
            bucket.put_file(str(file), f"{root}/{inside.as_posix()}")
    for name in bucket.find(root):
        copy = target / name.removeprefix(f"{root}/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        bucket.get_file(name, str(copy))


def test_finished_runs_are_reused_and_paused_ones_resumed_after_a_copy_through_a_bucket(random_qwen2, tmp_path):
    here, there = tmp_path / "runs", tmp_path / "elsewhere" / "runs"
    rows = write_rows(tmp_path / "rows")

    def sweep(runs, *words):
        return command("-m", *overrides(random_qwen2, rows, runs), "trainer.evaluations=2", *words)

    assert sweep(here, "peft=ia3").code == 0
    assert sweep(here, "peft=lora", "sweep.pause_after=1").code in (0, 1)
    assert sorted(record["status"] for record in records_of(here).values()) == ["finished", "interrupted"]

    through_a_bucket(here, there)
    done = sweep(there, "peft=lora,ia3")
    assert done.code == 0, done.err
    assert "1 of them finished earlier" in done.err
    assert done.err.count("resuming from the checkpoint") == 1
    assert {record["status"] for record in records_of(there).values()} == {"finished"}
    assert sorted(record["attempt"] for record in records_of(there).values()) == [1, 2]
    shown = command("stage=report", f"runs_dir={there}")
    assert shown.code == 0, shown.err


def test_runs_in_a_bucket_are_refused_before_anything_is_written(random_qwen2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*overrides(random_qwen2, write_rows(tmp_path / "rows"), "s3://bucket/runs"))
    assert done.code == 2
    assert "runs_dir=s3://bucket/runs is an address (s3), not a path of this machine" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows"]
