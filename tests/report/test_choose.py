"""Choosing runs: folders, fingerprints, conditions, and what a choice of nothing says."""

import json
import os
import shutil

import pytest

from harness.errors import ConfigFault
from harness.record import store
from harness.report.choose import choose_runs, read_runs, runs_of
from tests.support.reports import rewrite, write_run


@pytest.fixture
def runs_dir(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "runs", "lora", seed, "lora.r=4")
        write_run(tmp_path / "runs", "ia3", seed)
    return tmp_path / "runs"


def test_a_condition_chooses_by_settings_scores_and_costs(runs_dir):
    runs = read_runs([runs_dir])
    assert len(runs) == 4
    chosen = choose_runs(runs, where="method == lora and lora.r == 4 and seed < 1 and loss < 4 and train_s < 20")
    assert [(run.record["method"], run.record["plan"]["seed"]) for run in chosen] == [("lora", 0)]
    by_name = choose_runs(runs, where="peft == ia3 and scoring.split == test and before.loss == 4")
    assert {run.record["method"] for run in by_name} == {"ia3"}


def test_a_condition_that_no_run_meets_says_what_there_is(runs_dir):
    with pytest.raises(ConfigFault, match=r"matches none of 4 runs; method is (lora, ia3|ia3, lora); seed is 0, 1"):
        choose_runs(read_runs([runs_dir]), where="method == full and seed < 5")


def test_fingerprints_may_be_shortened_but_not_ambiguous(runs_dir):
    runs = read_runs([runs_dir])
    one = runs[0].fingerprint
    assert [run.fingerprint for run in choose_runs(runs, [one[:8]])] == [one]
    assert [run.fingerprint for run in choose_runs(runs, [one, one])] == [one]
    with pytest.raises(ConfigFault) as caught:
        choose_runs(runs, ["zzz", ""])
    assert [line.partition(" matches")[0] for line in str(caught.value).splitlines()] == [
        "report.runs=zzz",
        "report.runs=",
    ]
    two = {**runs[0].record, "fingerprint": one[:-1] + ("0" if one[-1] != "0" else "1")}
    (runs_dir / two["fingerprint"]).mkdir()
    rewrite(runs_dir, two)
    with pytest.raises(ConfigFault, match="matches 2 runs; give more of"):
        choose_runs(read_runs([runs_dir]), [one[:-1]])


def test_several_folders_count_a_plan_once_and_prefer_the_finished_run(tmp_path, caplog):
    record = write_run(tmp_path / "a", "lora", 0)
    error = {"type": "E", "message": "no", "hint": "", "traceback": ""}
    write_run(tmp_path / "b", "lora", 0, status="failed", error=error)
    write_run(tmp_path / "b", "ia3", 0)
    for folders in ([tmp_path / "a", tmp_path / "b"], [tmp_path / "b", tmp_path / "a"]):
        runs = read_runs(folders)
        assert len(runs) == 2
        [lora] = [run for run in runs if run.fingerprint == record["fingerprint"]]
        assert (lora.record["status"], lora.folder.parent.name) == ("finished", "a")


def test_folders_that_are_missing_or_empty_are_named(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        read_runs([tmp_path / "x", tmp_path / "y"], "report.runs_dirs")
    assert str(caught.value).count("report.runs_dirs=") == 2
    with pytest.raises(ConfigFault, match="holds no record; run something first"):
        read_runs([tmp_path])


def test_runs_of_a_sweep_are_found_by_fingerprint(runs_dir):
    names = [run.fingerprint for run in read_runs([runs_dir])]
    assert [run.fingerprint for run in runs_of(runs_dir, [*names[:2], "0" * 12])] == names[:2]


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write everywhere")
def test_a_damaged_record_in_a_read_only_folder_is_left_out(runs_dir):
    check_damaged(runs_dir)


def test_a_damaged_record_that_cannot_be_set_aside_is_left_out(runs_dir, monkeypatch):
    def refused(*_):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("harness.record.store.set_aside", refused)
    check_damaged(runs_dir)


def check_damaged(runs_dir):
    victim = read_runs([runs_dir])[0]
    (victim.folder / "record.json").write_text(json.dumps({"no": "record"}))
    victim.folder.chmod(0o555)
    try:
        assert len(read_runs([runs_dir])) == 3
    finally:
        victim.folder.chmod(0o755)


def test_records_that_the_files_of_wandb_carry_are_runs(tmp_path, caplog):
    record = write_run(tmp_path / "runs", "lora", 0)
    kept = store.record_path(tmp_path / "runs", record["fingerprint"])
    for name in ("offline-run-20260101_000000-abc", "run-20260101_000000-def"):
        files = tmp_path / "elsewhere" / "wandb" / name / "files"
        files.mkdir(parents=True)
        shutil.copy(kept, files / "peft_harness_record.json")
    (files / "peft_harness_record.json").write_text("{}")
    [run] = read_runs([tmp_path / "elsewhere"])
    assert run.record["fingerprint"] == record["fingerprint"]
    assert (files / "peft_harness_record.json").exists()  # only a folder of runs is tidied up
