"""Going on from a checkpoint: equal, bit for bit, to never having stopped; and what a damaged one causes."""

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from harness.pipeline import steps
from harness.training import checkpoints, trainer
from tests.support.method_cases import SHEETS, parts
from tests.support.runs import Prepared, loaded, overrides, plan_of, write_rows

STEPS = 8


class Cut(Exception):
    """What ends a training in its middle."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    """A plan made ready to train, by one of the cases or by overrides."""

    def ready(case: str = "lora", *words: str) -> Prepared:
        small = [f"trainer.max_steps={STEPS}", "trainer.evaluations=4", "trainer.batch_size=6"]
        plan, options = plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), *small, *words)
        method, settings, rate = parts(case)
        plan = replace(plan, method=method, settings=MappingProxyType(settings), learning_rate=rate)
        base = loaded(random_qwen2)
        fields = {"inferred": {}, "notes": [], "method": method, "fingerprint": plan.fingerprint}
        this = steps.Experiment(plan, options, "", fields)
        examples = steps.shared.examples(plan, base)
        return Prepared(plan, base, examples, this.attach(base, examples), this)

    return ready


@pytest.fixture
def keeping(tmp_path):
    return checkpoints.CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=3)


def trained(made: Prepared, folder, cut_at: int | None = None, **settings):
    """Training and the weights it ended with; ``Cut`` when the loss of step ``cut_at`` is told."""

    def log(step: int, values: dict) -> None:
        if step == cut_at:
            raise Cut

    done = made.train(folder, log=log, **settings)
    state = {name: value.clone() for name, value in made.model.state_dict().items()}
    return done, state


def same(one, other) -> None:
    assert one[0].curve == other[0].curve
    assert one[0].validation == other[0].validation
    assert one[0].best_step == other[0].best_step
    assert [one[0].text_tokens, one[0].supervised_tokens] == [other[0].text_tokens, other[0].supervised_tokens]
    assert one[1].keys() == other[1].keys()
    assert [name for name, value in one[1].items() if not torch.equal(value, other[1][name])] == []


# All of CASES pass; some stand for many here.
FEW = [*SHEETS, "lora:dora", "lora:pissa", "lora:lora_fa", "lora:lora_plus"]


@pytest.mark.parametrize("case", FEW)
def test_a_training_cut_off_ends_as_if_it_had_not_been(make, tmp_path, keeping, case):
    whole = trained(make(case), tmp_path / "a")
    with pytest.raises(Cut):
        trained(make(case), tmp_path / "b", cut_at=7, keeping=keeping)
    said: list[str] = []
    resumed = trained(make(case), tmp_path / "c", keeping=keeping, say=said.append)
    assert said == [f"goes on from the checkpoint of optimizer step 6 of {STEPS}"]
    same(resumed, whole)


def test_it_outlives_the_checkpoint_that_it_went_on_from(make, tmp_path, keeping):
    often = replace(keeping, every_steps=1)
    with pytest.raises(Cut):
        trained(make(), tmp_path / "a", cut_at=2, keeping=often)
    same(trained(make(), tmp_path / "b", keeping=often), trained(make(), tmp_path / "c"))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("diff_pruning", ()),  # before its places are fixed
        ("lora", ("trainer.gradient_accumulation_steps=2", "trainer.batch_size=3")),
        ("full", ("trainer.batch_size=24",)),  # a checkpoint at the end of an epoch
        ("adalora", ()),
    ],
)
def test_it_does_so_from_the_first_checkpoint_too(make, tmp_path, keeping, case, words):
    whole = trained(make(case, *words), tmp_path / "a")
    with pytest.raises(Cut):
        trained(make(case, *words), tmp_path / "b", cut_at=4, keeping=keeping)
    same(trained(make(case, *words), tmp_path / "c", keeping=keeping), whole)


def test_after_the_last_step_nothing_is_trained_again(make, tmp_path, keeping, monkeypatch):
    whole = trained(make(), tmp_path / "a", keeping=keeping)
    monkeypatch.setattr(trainer.HarnessTrainer, "training_step", lambda *_: pytest.fail("trained again"))
    same(trained(make(), tmp_path / "b", keeping=keeping), whole)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(make, tmp_path, keeping, caplog):
    whole = trained(make(), tmp_path / "a")
    with pytest.raises(Cut):
        trained(make(), tmp_path / "b", cut_at=7, keeping=keeping)
    weights = keeping.folder / "step-00000006" / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    said: list[str] = []
    with caplog.at_level("WARNING", logger="harness"):
        resumed = trained(make(), tmp_path / "c", keeping=keeping, say=said.append)
    assert "trainable.safetensors is not what was written" in caplog.text
    assert (keeping.folder / "step-00000006.corrupt-1").is_dir()
    assert said == [f"goes on from the checkpoint of optimizer step 3 of {STEPS}"]
    same(resumed, whole)


def test_a_checkpoint_of_other_code_is_not_gone_on_with(make, tmp_path, keeping, caplog):
    with pytest.raises(Cut):
        trained(make(), tmp_path / "a", cut_at=7, keeping=keeping)
    with caplog.at_level("WARNING", logger="harness"):
        trained(make(), tmp_path / "b", keeping=replace(keeping, code="other"), say=pytest.fail)
    assert "was written by other code" in caplog.text


def test_the_newest_two_are_kept(tmp_path):
    keeping = checkpoints.CheckpointSettings(tmp_path, "code", None, None)
    for step in (1, 2, 3):
        checkpoints.write_checkpoint(keeping, step, lambda folder: (folder / "a").write_text("x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    manifest = json.loads((tmp_path / "step-00000003" / "manifest.json").read_text())
    assert (manifest["step"], list(manifest["files"])) == (3, ["a"])


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"files": {"a": "0"}}', '{"step": 1, "code": "code", "files": {"b": "0"}}']
)
def test_a_manifest_that_is_none_is_damage(tmp_path, damage):
    keeping = checkpoints.CheckpointSettings(tmp_path, "code", None, None)
    place = checkpoints.write_checkpoint(keeping, 1, lambda folder: (folder / "a").write_text("x"))
    (place / "manifest.json").write_text(damage)
    assert checkpoints.newest_checkpoint(keeping) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.corrupt-1"]
