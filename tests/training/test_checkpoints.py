"""Checkpoints on disk: the newest two are kept, and a damaged one is set aside."""

import json

import pytest

from harness.training import checkpoints


def test_the_newest_two_are_kept(tmp_path):
    settings = checkpoints.CheckpointSettings(tmp_path, "code", None, None)
    for step in (1, 2, 3):
        checkpoints.write_checkpoint(settings, step, lambda folder: (folder / "a").write_text("x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    manifest = json.loads((tmp_path / "step-00000003" / "manifest.json").read_text())
    assert (manifest["step"], list(manifest["files"])) == (3, ["a"])


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"files": {"a": "0"}}', '{"step": 1, "code": "code", "files": {"b": "0"}}']
)
def test_a_manifest_that_is_none_is_damage(tmp_path, damage):
    settings = checkpoints.CheckpointSettings(tmp_path, "code", None, None)
    place = checkpoints.write_checkpoint(settings, 1, lambda folder: (folder / "a").write_text("x"))
    (place / "manifest.json").write_text(damage)
    assert checkpoints.newest_checkpoint(settings) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.corrupt-1"]
