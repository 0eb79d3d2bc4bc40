"""stage=archive: runs are moved whole, never deleted unless confirmed, and never while somebody works on them."""

import errno
import logging
import os

import pytest

from harness.config.free_text import quote_free_text
from harness.errors import ConfigFault, RunFault
from harness.record import locks, store
from harness.stages.archive import archive_runs
from tests.support.runs import plan_of
from tests.support.sweeps import finish_record, make_cell


@pytest.fixture
def runs(tmp_path, weightless):
    made = []
    for r in (4, 8):
        cell = make_cell(tmp_path / "runs", weightless, f"lora.r={r}")
        finish_record(cell, note="keep me", tags=["old"])
        (cell.folder / "adapter").mkdir()
        (cell.folder / "adapter" / "weights").write_bytes(b"12")
        made.append(cell)
    return made


@pytest.fixture
def archive(tmp_path, weightless):
    """Archives with these words."""
    words = (f"model.path={weightless}", f"runs_dir={tmp_path / 'runs'}", "stage=archive")
    return lambda *more: archive_runs(plan_of(*words, *quote_free_text(list(more)))[1])


def test_chosen_runs_are_moved_whole_and_can_be_read_there(runs, archive, tmp_path):
    before = runs[0].read_record()
    archive("report.where=lora.r == 4")
    assert not runs[0].folder.exists()
    there = tmp_path / "runs" / "archive"
    assert store.read_record(there, before["fingerprint"]) == before
    assert (there / before["fingerprint"] / "adapter" / "weights").read_bytes() == b"12"
    assert not (there / before["fingerprint"] / "lock").exists()
    assert [record["fingerprint"] for record in store.all_records(tmp_path / "runs")] == [runs[1].plan.fingerprint]


def test_runs_are_found_by_their_tags_and_the_folder_can_be_chosen(runs, archive, tmp_path):
    archive("report.where='old' in tags", f"archive.dir={tmp_path / 'attic'}")
    assert len(store.all_records(tmp_path / "attic")) == 2


def test_another_file_system_gets_a_complete_copy_first(runs, archive, tmp_path, monkeypatch):
    rename = os.rename

    def refuse(source, target):
        if os.path.basename(source) == runs[0].plan.fingerprint:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    archive(f"report.runs=[{runs[0].plan.fingerprint}]")
    there = tmp_path / "runs" / "archive"
    assert [path.name for path in there.iterdir()] == [runs[0].plan.fingerprint]
    assert sorted(path.name for path in (there / runs[0].plan.fingerprint).iterdir()) == ["adapter", "record.json"]
    assert not runs[0].folder.exists()


def test_a_run_that_somebody_works_on_stays_and_the_others_go(runs, archive):
    with (
        locks.take_lock(runs[0].folder),
        pytest.raises(RunFault, match=r"stays where it is: process .* is working on it"),
    ):
        archive("report.where=status == finished")
    assert runs[0].folder.exists()
    assert not runs[1].folder.exists()


def test_what_is_in_the_archive_is_never_replaced(runs, archive, tmp_path):
    (tmp_path / "runs" / "archive" / runs[0].plan.fingerprint).mkdir(parents=True)
    with pytest.raises(RunFault, match=r"exists already; set another archive\.dir"):
        archive("report.where=lora.r == 4")
    assert runs[0].read_record()["status"] == "finished"


def test_nothing_is_deleted_without_confirmation(runs, archive, caplog):
    caplog.set_level(logging.INFO, "harness")
    with pytest.raises(ConfigFault, match=r"nothing is deleted without confirm=true"):
        archive("report.where=lora.r == 4", "archive.delete=true")
    assert f"{runs[0].plan.fingerprint} lora finished" in caplog.text
    assert "[old]: keep me" in caplog.text
    assert all(run.folder.exists() for run in runs)
    archive("report.where=lora.r == 4", "archive.delete=true", "confirm=true")
    assert [run.folder.exists() for run in runs] == [False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stage=archive"], "stage=archive would take every run"),
        (["confirm=true"], "confirm=true has nothing to confirm"),
        (["stage=diff"], "diff.runs=None does not name two runs"),
        (["stage=diff", "diff.runs=[a]"], "does not name two runs"),
        (["tracker.artifact=true"], "tracker.artifact=true has no effect with tracker=none"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(weightless, words, message):
    with pytest.raises(ConfigFault, match=message):
        plan_of(f"model.path={weightless}", *words)
