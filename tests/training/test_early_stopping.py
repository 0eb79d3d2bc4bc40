"""Early stopping: when training ends, which weights stay, and that a resumed run ends at the same step."""

from unittest import mock

import pytest
import torch

from harness.training import checkpoints, train
from tests.support.packs import cell_of, run_pack
from tests.support.runs import Cut, command, cut_at, overrides, records_of

SIX = ("trainer.max_steps=6", "trainer.evaluations=6")


def trained(made, folder, losses, **more):
    """Train with these validation losses."""
    given = iter(losses)
    with mock.patch.object(train, "mean_completion_loss", side_effect=lambda model, **_: next(given)):
        return made.train(folder, **more)


@pytest.mark.parametrize(
    ("losses", "words", "step", "best"),
    [
        ((3.0, 2.0, 2.5, 2.1, 1.0, 0.5), ("patience=2",), 4, 2),
        ((3.0, 2.0, 2.5, 1.9, 2.0, 0.5), ("patience=2",), None, 6),  # a lower loss between begins anew
        ((3.0, 3.0, 1.0, 1.0, 1.0, 1.0), ("patience=1",), 2, 1),  # an equal loss is not a lower one
        ((3.0, 2.9, 2.8, 2.7, 1.0, 0.5), ("patience=2", "min_change=0.5"), 3, 3),  # kept: the lowest of all
        ((3.0, 2.9, 2.8, 2.4, 2.5, 2.4), ("patience=3", "min_change=0.5"), None, 4),  # against the last that counted
        ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), ("patience=4",), 5, 1),
    ],
)
def test_training_ends_after_so_many_losses_that_are_not_lower(make, tmp_path, losses, words, step, best):
    made = make(*SIX, *(f"trainer.early_stopping.{word}" for word in words))
    done = trained(made, tmp_path / "scratch", losses)
    assert done.best_step == best
    if step is None:
        assert (done.stopped_early, done.optimizer_steps) == (None, 6)
        return
    assert done.optimizer_steps == done.stopped_early.step == len(done.validation) == step
    assert (done.stopped_early.steps, done.stopped_early.evaluation) == (6, step)
    assert done.stopped_early.lowest == min(losses[: done.stopped_early.lowest_step])
    assert done.curve[-1]["step"] == step


def test_the_first_steps_are_those_of_the_whole_training(make, tmp_path):
    """The schedule of the learning rate is made for all steps, so that stopping changes nothing before it."""
    whole = trained(make(*SIX), tmp_path / "a", (3.0, 2.0, 2.5, 2.1, 1.0, 0.5))
    early = trained(make(*SIX, "trainer.early_stopping.patience=2"), tmp_path / "b", (3.0, 2.0, 2.5, 2.1, 1.0, 0.5))
    assert early.curve == whole.curve[:4]


def test_methods_that_prune_are_not_stopped_before_they_have(make, tmp_path):
    words = ("peft=adalora", "trainer.max_steps=10", "trainer.evaluations=10", "adalora.final_share=0.3")
    made = make(*words, "adalora.init_r=4", "adalora.target_r=2", "trainer.early_stopping.patience=2")
    done = trained(
        made, tmp_path / "scratch", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.5]
    )  # prunes until step 7
    assert (done.stopped_early.step, done.stopped_early.lowest, done.best_step) == (9, 7.0, 7)


def test_a_training_that_is_cut_while_it_waits_ends_at_the_same_step(make, tmp_path):
    """The checkpoint keeps how long it has waited: one evaluation before the cut, one after it."""
    words = ("trainer.max_steps=8", "trainer.evaluations=4", "trainer.early_stopping.patience=2")
    words = (*words, "trainer.early_stopping.min_change=9", "trainer.batch_size=6")
    settings = checkpoints.CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=5)

    made = make(*words)
    whole = made.train(tmp_path / "a")
    with pytest.raises(Cut):
        make(*words).train(tmp_path / "b", settings, log=cut_at(6))
    resumed = make(*words)
    done = resumed.train(tmp_path / "c", settings)
    assert (done.stopped_early, done.optimizer_steps) == (whole.stopped_early, 6)
    assert (done.curve, done.validation, done.best_step) == (whole.curve, whole.validation, whole.best_step)
    assert all(torch.equal(weight, resumed.trainable()[name]) for name, weight in made.trainable().items())
    again = make(*words).train(tmp_path / "d", settings)  # from the checkpoint of the end
    assert (again.stopped_early, again.optimizer_steps) == (whole.stopped_early, 6)


def test_record_and_report_say_that_a_run_stopped_early(random_qwen2, rows, tmp_path):
    runs = tmp_path / "runs"
    stopping = ("trainer.max_steps=6", "trainer.evaluations=6", "trainer.early_stopping.min_change=9")
    words = [*overrides(random_qwen2, rows, runs), *stopping, "trainer.early_stopping.patience=2"]
    done = command(*words, "trainer.log_every=2")
    assert done.code == 0, done.err
    [record] = records_of(runs).values()
    stop = record["training"]["stopped_early"]
    assert (record["status"], stop["step"], stop["steps"], stop["lowest_step"]) == ("finished", 3, 6, 1)
    assert [point["step"] for point in record["training"]["curve"]] == [2, 3]
    note = next(note for note in record["notes"] if "stopped early" in note)
    assert note.startswith("stopped early after optimizer step 3 of 6 (trainer.early_stopping): 2 evaluations in a row")
    assert "stopped early after optimizer step 3 of 6" in done.err
    shown = command("stage=report", f"runs_dir={runs}")
    assert shown.code == 0, shown.err
    page = (runs / "report" / "report.md").read_text().replace("\\", "")
    assert "stopped early on their own validation loss (trainer.early_stopping): row 1 at step 3 of 6." in page


def test_a_run_of_a_pack_that_stops_early_leaves_the_others_to_their_end(random_qwen2, rows, tmp_path):
    words = ("trainer.max_steps=4", "trainer.batch_size=3", "trainer.evaluations=4")
    stopping = ("trainer.early_stopping.patience=1", "trainer.early_stopping.min_change=9")
    cells = [
        cell_of(random_qwen2, rows, tmp_path / "runs", *words, *more)
        for more in (("lora.r=2", *stopping), ("lora.r=3",))
    ]
    early, whole = (outcome.record for outcome in run_pack(cells, max_runs=2))
    assert (early["training"]["optimizer_steps"], early["training"]["stopped_early"]["step"]) == (2, 2)
    assert (whole["training"]["optimizer_steps"], "stopped_early" in whole["training"]) == (4, False)
    assert early["packed"]["passes"] == 2
