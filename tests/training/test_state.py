"""Resuming from a checkpoint: equal, bit for bit, to never having stopped; and what a damaged one causes."""

import shutil
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from harness.errors import Paused
from harness.training import checkpoints, trainer
from tests.support.method_cases import SHEETS, parts
from tests.support.runs import Cut, Prepared, cut_at, loaded, overrides, plan_of, ready, write_rows

STEPS = 8


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    """A plan made ready to train, by one of the cases or by overrides."""

    def ready_to_train(case: str = "lora", *words: str) -> Prepared:
        small = [f"trainer.max_steps={STEPS}", "trainer.evaluations=4", "trainer.batch_size=6"]
        plan, _ = plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), *small, *words)
        method, settings, rate = parts(case)
        plan = replace(plan, method=method, settings=MappingProxyType(settings), learning_rate=rate)
        return ready(plan, loaded(random_qwen2), tmp_path / "runs")

    return ready_to_train


@pytest.fixture
def settings(tmp_path):
    return checkpoints.CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=3)


def trained(made: Prepared, folder, last: int | None = None, **more):
    """Training and the weights it ended with; ``Cut`` when the loss of step ``last`` is logged."""

    done = made.train(folder, log=cut_at(last), **more)
    state = {name: value.clone() for name, value in made.model.state_dict().items()}
    return done, state


def same(one, other) -> None:
    assert one[0].curve == other[0].curve
    assert one[0].validation == other[0].validation
    assert one[0].best_step == other[0].best_step
    assert [one[0].text_tokens, one[0].supervised_tokens] == [other[0].text_tokens, other[0].supervised_tokens]
    assert one[1].keys() == other[1].keys()
    assert [name for name, value in one[1].items() if not torch.equal(value, other[1][name])] == []


# All of CASES pass; some stand for many here, and few of those are quick.
QUICK = ("lora", "adalora", "diff_pruning", "prefix_tuning", "lora:lora_fa")
TESTED = [*SHEETS, "lora:dora", "lora:pissa", "lora:lora_fa", "lora:lora_plus"]


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in TESTED]
)
def test_a_resumed_training_ends_as_if_it_had_not_been_stopped(make, tmp_path, settings, case):
    whole = trained(make(case), tmp_path / "a")
    with pytest.raises(Cut):
        trained(make(case), tmp_path / "b", last=7, checkpoint=settings)
    notes: list[str] = []
    resumed = trained(make(case), tmp_path / "c", checkpoint=settings, note=notes.append)
    assert notes == [f"resuming from the checkpoint at optimizer step 6 of {STEPS}"]
    same(resumed, whole)


def test_it_outlives_the_checkpoint_that_it_resumed_from(make, tmp_path, settings):
    often = replace(settings, every_steps=1)
    with pytest.raises(Cut):
        trained(make(), tmp_path / "a", last=2, checkpoint=often)
    same(trained(make(), tmp_path / "b", checkpoint=often), trained(make(), tmp_path / "c"))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("diff_pruning", ()),  # before its places are fixed
        ("lora", ("trainer.gradient_accumulation_steps=2", "trainer.batch_size=3")),
        ("full", ("trainer.batch_size=24",)),  # a checkpoint at the end of an epoch
        ("adalora", ()),
    ],
)
def test_a_resumed_training_from_the_first_checkpoint_ends_so_too(make, tmp_path, settings, case, words):
    whole = trained(make(case, *words), tmp_path / "a")
    with pytest.raises(Cut):
        trained(make(case, *words), tmp_path / "b", last=4, checkpoint=settings)
    same(trained(make(case, *words), tmp_path / "c", checkpoint=settings), whole)


def test_after_the_last_step_nothing_is_trained_again(make, tmp_path, settings, monkeypatch):
    whole = trained(make(), tmp_path / "a", checkpoint=settings)
    monkeypatch.setattr(trainer.HarnessTrainer, "training_step", lambda *_: pytest.fail("trained again"))
    same(trained(make(), tmp_path / "b", checkpoint=settings), whole)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(make, tmp_path, settings, caplog):
    whole = trained(make(), tmp_path / "a")
    with pytest.raises(Cut):
        trained(make(), tmp_path / "b", last=7, checkpoint=settings)
    weights = settings.folder / "step-00000006" / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    notes: list[str] = []
    with caplog.at_level("WARNING", logger="harness"):
        resumed = trained(make(), tmp_path / "c", checkpoint=settings, note=notes.append)
    assert "checksum mismatch in trainable.safetensors" in caplog.text
    assert (settings.folder / "step-00000006.corrupt-1").is_dir()
    assert notes == [f"resuming from the checkpoint at optimizer step 3 of {STEPS}"]
    same(resumed, whole)


def test_a_checkpoint_of_other_code_is_not_resumed(make, tmp_path, settings, caplog):
    with pytest.raises(Cut):
        trained(make(), tmp_path / "a", last=7, checkpoint=settings)
    with caplog.at_level("WARNING", logger="harness"):
        trained(make(), tmp_path / "b", checkpoint=replace(settings, code="other"), note=pytest.fail)
    assert "was written by other code" in caplog.text


# --- pausing after an evaluation, for sweep.prune -----------------------------------------------------------


def paused(made: Prepared, folder, settings):
    with pytest.raises(Paused, match=r"paused after optimizer step \d of 8, for a verdict") as caught:
        trained(made, folder, checkpoint=settings)
    return caught.value.result


@pytest.mark.parametrize("case", ["lora", "adalora", pytest.param("diff_pruning", marks=pytest.mark.slow)])
def test_a_training_that_paused_at_two_evaluations_ends_as_if_it_had_not(make, tmp_path, settings, case):
    whole = trained(make(case), tmp_path / "a")
    first = paused(make(case), tmp_path / "b", replace(settings, pause_after=1))
    assert (first.optimizer_steps, first.validation) == (2, whole[0].validation[:1])
    second = paused(make(case), tmp_path / "c", replace(settings, pause_after=2))
    assert (second.optimizer_steps, second.validation) == (4, whole[0].validation[:2])
    assert second.curve == whole[0].curve[: len(second.curve)]
    same(trained(make(case), tmp_path / "d", checkpoint=settings), whole)


def test_a_run_that_is_at_its_pause_or_beyond_it_is_not_trained(make, tmp_path, settings, monkeypatch):
    paused(make(), tmp_path / "a", replace(settings, pause_after=2))
    monkeypatch.setattr(trainer.HarnessTrainer, "training_step", lambda *_: pytest.fail("trained again"))
    for number in (1, 2):
        result = paused(make(), tmp_path / "b", replace(settings, pause_after=number))
        assert (result.optimizer_steps, len(result.validation)) == (4, 2)


def test_a_pause_at_the_last_evaluation_or_after_it_is_the_end(make, tmp_path, settings):
    for number in (4, 9):
        shutil.rmtree(settings.folder, ignore_errors=True)
        done, _ = trained(make(), tmp_path / "a", checkpoint=replace(settings, pause_after=number))
        assert done.optimizer_steps == STEPS
