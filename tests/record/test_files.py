"""Files and folders are complete or absent; damaged ones keep their content under another name."""

import builtins
import json
import os

import pytest

from harness.record import files
from harness.record.files import (
    atomic_write_bytes,
    atomic_write_text,
    partial_path,
    remove_partial,
    replacing,
    set_aside,
    write_jsonl,
)


@pytest.mark.posix
def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names))[1])
    atomic_write_text(tmp_path / "x.txt", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_predictions_are_one_object_a_line_whatever_the_model_wrote(tmp_path):
    rows = [
        {"prompt": "问：\u2028", "reference": "答", "before": "</script>\n\x85", "after": "\ud800 half"},
        {"prompt": "b", "reference": "", "before": "", "after": ""},
    ]
    file = tmp_path / "run" / "predictions.jsonl"
    assert write_jsonl(file, rows) == 2
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 2
    assert [json.loads(line) for line in text.splitlines()] == rows
    write_jsonl(file, rows[1:])
    assert "答" not in file.read_text(encoding="utf-8")


def test_rows_that_fail_half_way_leave_the_old_predictions(tmp_path):
    def rows():
        yield {"prompt": "new"}
        raise ValueError("no more")

    file = tmp_path / "predictions.jsonl"
    write_jsonl(file, [{"prompt": "old"}])
    with pytest.raises(ValueError, match="no more"):
        write_jsonl(file, rows())
    assert json.loads(file.read_text()) == {"prompt": "old"}
    assert list(tmp_path.iterdir()) == [file]


def test_open_is_never_used_to_overwrite_in_place(tmp_path, monkeypatch):
    modes, real = [], builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda file, mode="r", *a, **k: (modes.append(mode), real(file, mode, *a, **k))[1]
    )
    atomic_write_bytes(tmp_path / "x", b"1")
    atomic_write_bytes(tmp_path / "x", b"2")
    assert [mode for mode in modes if set(mode) & set("wax+")] == ["xb", "xb"]


def test_a_folder_replaces_an_older_one_when_it_is_complete(tmp_path):
    target = tmp_path / "adapter"
    for content in ("old", "new"):
        with replacing(target) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
            assert not (target / content).exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "adapter"
    target.mkdir()

    def fail():
        with replacing(target) as partial:
            partial.mkdir()
            (partial / "half").write_text("")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.rglob("*")) == [target]


def test_processes_that_share_a_tag_write_into_one_partial_folder(tmp_path):
    with replacing(tmp_path / "step", "shared") as partial:
        assert partial == partial_path(tmp_path / "step", "shared")
        partial.mkdir()
    assert partial_path(tmp_path / "step") != partial_path(tmp_path / "step")


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    partial_path(tmp_path / "record.json").write_text("{")
    (partial_path(tmp_path / "adapter") / "deep").mkdir(parents=True)
    (tmp_path / "record.json").write_text("{}")
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_damaged_files_and_folders_are_numbered(tmp_path):
    for number in (1, 2):
        (tmp_path / "step").mkdir()
        assert set_aside(tmp_path / "step") == tmp_path / f"step.corrupt-{number}"
    assert set_aside(tmp_path / "gone").name == "gone.corrupt-1"  # another process was quicker
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step.corrupt-1", "step.corrupt-2"]


def test_only_the_main_process_writes_files(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    atomic_write_text(tmp_path / "x", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_of_a_new_folder_have_the_permissions_of_their_neighbors(tmp_path, mask, mode):
    """safetensors makes its files for their owner alone."""
    before = os.umask(mask)
    try:
        with files.replacing(tmp_path / "adapter") as partial:
            (partial / "inner").mkdir(parents=True)
            for name in ("private", "inner/private"):
                (partial / name).touch(0o600)
            (partial / "plain").touch()
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "adapter").rglob("*") if path.is_file()}
    assert modes == {mode}


def test_json_of_a_library_is_rewritten_only_if_it_holds_a_secret(tmp_path):
    file = tmp_path / "adapter_config.json"
    file.write_text('{"a":1}')
    files.redact_json(file)
    assert file.read_text() == '{"a":1}'
    file.write_text('{"base": "https://me:pass@host/x"}')
    files.redact_json(file)
    assert json.loads(file.read_text()) == {"base": "https://<secret>@host/x"}
