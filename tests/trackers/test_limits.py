"""W&B's limits are met, and texts that it shortens stay apart."""

from dataclasses import replace

import pytest

from harness.trackers.wandb import NAME, TAG, fitting, fitting_tags
from tests.support.trackers import start, tracker
from tests.support.wandb_files import closed, offline_files


@pytest.mark.parametrize("length", [1, TAG, TAG + 1, 1000])
def test_a_text_fits_and_a_short_one_is_unchanged(length):
    text = "模" * length
    assert len(fitting(text, TAG)) <= TAG
    assert (fitting(text, TAG) == text) == (length <= TAG)


def test_long_texts_that_differ_in_the_middle_stay_apart():
    one, other = (f"{'a' * 100}{middle}{'z' * 100}" for middle in "xy")
    assert fitting(one, NAME) != fitting(other, NAME)
    assert fitting(one, NAME).endswith("z" * 50)  # of a path, its last folders


def test_tags_are_neither_empty_nor_repeated():
    assert fitting_tags(["lora", "", " ", "lora", " tiny "]) == ["lora", "tiny"]


def test_a_run_starts_whatever_its_names(tmp_path):
    long = "/data/" + "a_folder_of_checkpoints/" * 20 + "model"
    chosen = replace(tracker("wandb", tmp_path), project="team/proj: 50% #1?" + "x" * 200)
    run = start(chosen, group=long, name=long, tags=[long, "", "lora"])
    run.finish(True)
    (file,) = offline_files(tmp_path)
    (head,) = [record.run for record in closed(file) if record.HasField("run")]
    assert [len(tag) <= TAG for tag in head.tags] == [True, True]
    assert len(head.display_name) <= NAME
    assert head.project.startswith("team-proj- 50- -1-x")
