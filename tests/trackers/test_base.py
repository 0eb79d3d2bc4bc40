"""Trackers: none writes nothing, faults name the key, and each option gives every field."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from harness.config.schema import Tracker, Tracking
from harness.errors import RunFault
from tests.support.paths import ROOT
from tests.support.trackers import play, start, tracker

CONF = ROOT / "conf" / "tracker"


def test_none_writes_nothing_and_imports_nothing(tmp_path):
    run = start(tracker("none", tmp_path / "none"))
    play(run, ok=True)
    assert run.id is None
    assert not (tmp_path / "none").exists()
    code = (
        "import sys, harness.trackers.base; "
        "sys.exit(bool({'wandb', 'tensorboard', 'trackio', 'pandas', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_unwritable_folder_names_the_key(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFault, match=r"tracker.dir=.*file/x cannot be created"):
        start(tracker(name, tmp_path / "file" / "x"))


@pytest.mark.parametrize("name", [each.value for each in Tracking])
def test_tracker_file_gives_every_field(name):
    file = OmegaConf.load(CONF / f"{name}.yaml")
    own = OmegaConf.create({"runs_dir": "runs", "tags": ["paper"], "note": "why", "tracker": file})
    values = OmegaConf.to_container(own, resolve=True)["tracker"]
    loaded = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Tracker), values))
    assert (loaded.name, loaded.mode, loaded.dir) == (Tracking(name), "offline", "runs/tracker")
    assert (loaded.tags, loaded.notes) == (["paper"], "why")  # those of the records, unless it has its own
