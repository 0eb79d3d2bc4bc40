"""Training: order of rows, labels, accumulation, penalties, checkpoints of memory, seeds, and when it stops."""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from harness.config import schema
from harness.data.audit import label_audit
from harness.data.sampler import LengthSampler
from harness.data.tokenize import prompt_of
from harness.errors import RunFault
from harness.models.base import load_base
from harness.plan.spec import optimizer_steps
from harness.scoring.generate import generate
from harness.training import trainer
from tests.support.runs import command, overrides, plan_of, prepared, records_of, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def even_rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("even_rows"), train_rows=32, constant=True)


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words, rows=rows: prepared(random_qwen2, rows, tmp_path / "runs", *words)


class Spy:
    """Keeps the batches that the model saw."""

    def __init__(self, model: Any) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []
        inner = model.get_base_model()
        inner.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training:
            kept = ("input_ids", "attention_mask", "labels")
            self.batches.append({name: kwargs[name].clone() for name in kept if kwargs.get(name) is not None})


def test_trainer_follows_the_sampler_through_two_epochs(make):
    made = make("trainer.max_steps=6")  # 24 rows, 8 a batch: two epochs
    spy = Spy(made.model)
    made.train(Path("unused"))
    examples = made.rows.splits["train"]
    seen = [[row[mask.bool()].tolist() for row, mask in zip(b["input_ids"], b["attention_mask"], strict=True)]
            for b in spy.batches]  # fmt: skip
    expected = []
    for epoch in range(2):
        sampler = LengthSampler([len(example.input_ids) for example in examples], 8, made.plan.seed)
        sampler.set_epoch(epoch)
        order = list(sampler)
        expected += [[list(examples[i].input_ids) for i in order[at : at + 8]] for at in range(0, 24, 8)]
    assert seen == expected


def test_only_completion_and_end_of_text_are_labels_and_the_record_counts_what_the_model_saw(make):
    made = make("trainer.max_steps=3")  # one epoch
    spy = Spy(made.model)
    done = made.train(Path("unused"))
    eos = made.base.tokenizer.eos_token_id
    texts = []
    for batch in spy.batches:
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            kept = labels != -100
            assert labels[kept].tolist() == ids[kept].tolist()
            assert labels[kept][-1] == eos
            assert not kept[~mask.bool()].any()
            texts.append(made.base.tokenizer.decode(labels[kept][:-1]))
    assert sorted(texts) == sorted(example.row.output for example in made.rows.splits["train"])
    supervised = sum(int((batch["labels"] != -100).sum()) for batch in spy.batches)
    present = sum(int(batch["attention_mask"].sum()) for batch in spy.batches)
    size = sum(batch["input_ids"].numel() for batch in spy.batches)
    assert (done.supervised_tokens, done.prompt_tokens, done.padding_tokens) == (
        supervised,
        present - supervised,
        size - present,
    )
    audit = label_audit(made.rows.splits["train"])
    assert (audit["supervised_tokens"], audit["prompt_tokens"]) == (supervised, present - supervised)


def test_the_lessons_labels_are_audited_as_they_are_trained(make):
    made = make("trainer.max_steps=3", "trainer.objective=lesson")
    spy = Spy(made.model)
    done = made.train(Path("unused"))
    audit = label_audit(made.rows.splits["train"], 0, schema.Objective.lesson)
    labelled = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in spy.batches)
    padding = sum(int((batch["labels"][:, 1:] == made.base.tokenizer.pad_token_id).sum()) for batch in spy.batches)
    present = sum(int(batch["attention_mask"].sum()) for batch in spy.batches)
    assert done.supervised_tokens == audit["supervised_tokens"] == labelled == 24 * 511
    assert audit["supervised_padding_tokens"] == padding > labelled * 0.9
    assert done.prompt_tokens == done.text_tokens == audit["prompt_tokens"] == present
    assert audit["supervised_sha256"] != label_audit(made.rows.splits["train"])["supervised_sha256"]


@pytest.mark.parametrize("method", ["lora", "adalora", "prompt_tuning", "diff_pruning", "cpt"])
def test_accumulating_two_batches_is_training_on_one_of_both(make, even_rows, method):
    words = [f"peft={method}", "trainer.max_steps=2", "trainer.learning_rate=1e-2", "trainer.max_grad_norm=1e-3"]
    words += ["diff_pruning.l0_weight=1e-3", "cpt.num_virtual_tokens=8"]
    gradients = []
    for split in ("trainer.batch_size=16", "trainer.batch_size=8 trainer.gradient_accumulation_steps=2"):
        made = make(*words, *split.split(), rows=even_rows)
        with _fixed_gates():
            norms = [point["grad_norm"] for point in made.train(Path("unused")).curve]
        gradients.append((norms, made.trainable()))
    (one, together), (two, apart) = gradients
    # AdamW forgives a gradient of twice the size; its norm does not.
    assert one == pytest.approx(two, rel=1e-3)
    for name, weight in together.items():
        assert torch.allclose(weight, apart[name], atol=2e-4), name


def _fixed_gates() -> Any:
    """Diff pruning draws its gates anew in each batch; here they are drawn alike."""
    return mock.patch("torch.rand_like", lambda tensor, **_: torch.full_like(tensor, 0.5))


def test_accumulation_weighs_tokens_not_batches(make):
    """Rows of unlike length: the mean is over the step's tokens, as if they stood in one batch."""
    words = ("trainer.max_steps=1", "trainer.max_grad_norm=1e9")
    whole = make(*words, "trainer.batch_size=24")
    parts = make(*words, "trainer.batch_size=4", "trainer.gradient_accumulation_steps=6")
    one, six = (made.train(Path("unused")).curve[0] for made in (whole, parts))
    assert one["grad_norm"] == pytest.approx(six["grad_norm"], rel=1e-4)
    assert one["loss"] == pytest.approx(six["loss"], rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "full", "prompt_tuning", "adalora"])
def test_gradient_checkpointing_leaves_the_trajectory_alone(make, method):
    results = []
    for switch in ("false", "true"):
        made = make(f"peft={method}", f"trainer.gradient_checkpointing={switch}")
        results.append((made.train(Path("unused")).curve, made.trainable()))
    (curve, weights), (other_curve, other_weights) = results
    assert [point["loss"] for point in curve] == pytest.approx([point["loss"] for point in other_curve], rel=1e-5)
    assert all(torch.allclose(weights[name], other_weights[name], atol=1e-5) for name in weights)


@pytest.mark.parametrize("method", ["lora", "prefix_tuning", "adalora"])
def test_one_seed_is_one_adapter_bit_for_bit_and_two_seeds_are_two(make, method):
    def weights(seed: int) -> dict[str, torch.Tensor]:
        made = make(f"peft={method}", f"seed={seed}")
        made.train(Path("unused"))
        return made.trainable()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_dropout_draws_alike_whatever_ran_before(make):
    made = make("lora.lora_dropout=0.5")
    made.train(Path("unused"))
    torch.rand(5)
    again = make("lora.lora_dropout=0.5")
    again.train(Path("unused"))
    assert all(torch.equal(weight, again.trainable()[name]) for name, weight in made.trainable().items())


def test_a_loss_that_is_no_number_stops_training_with_step_and_batch(make):
    made = make("trainer.max_steps=4")
    calls = []
    original = trainer.Trainer.compute_loss

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        loss = original(self, *args, **kwargs)
        return loss * math.nan if len(calls) == 3 else loss

    with mock.patch.object(trainer.Trainer, "compute_loss", poisoned), pytest.raises(RunFault) as caught:
        made.train(Path("unused"))
    assert "optimizer step 3" in str(caught.value)
    assert "a batch of 8 rows" in str(caught.value)
    assert "lower trainer.learning_rate" in str(caught.value)


def test_weights_that_break_in_the_last_step_are_noticed_by_the_validation_loss(make):
    made = make("trainer.max_steps=1", "trainer.learning_rate=1e30")
    with pytest.raises(RunFault, match=r"validation loss is not finite .* after optimizer step 1"):
        made.train(Path("unused"))


def test_a_run_with_a_loss_that_is_no_number_leaves_a_failed_record_with_a_hint(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "trainer.learning_rate=1e30", "trainer.evaluations=0"]
    words += ["trainer.keep_best=false"]
    done = command(*words, "trainer.max_steps=3", "trainer.warmup_share=0")
    [kept] = records_of(tmp_path / "runs").values()
    assert done.code == 1
    assert kept["status"] == "failed"
    assert kept["error"]["type"] == "RunFault"
    assert "optimizer step 2" in kept["error"]["message"]
    assert "lower trainer.learning_rate" in kept["error"]["hint"]
    assert not (tmp_path / "runs" / kept["fingerprint"] / "scratch").exists()


def test_lora_fa_trains_b_alone_and_is_counted_so(make):
    made = make("lora.lora_fa=true", "lora.r=4")
    before = made.trainable()
    made.train(Path("unused"))
    after = made.trainable()
    assert after
    assert all("lora_B" in name for name in after)
    frozen = dict(made.model.named_parameters())
    assert all(torch.equal(before[name], frozen[name]) for name in before if "lora_A" in name)
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_lora_plus_moves_b_faster(make):
    def moved(*words: str) -> tuple[float, float]:
        made = make("lora.init_lora_weights=gaussian", "trainer.max_steps=1", "trainer.warmup_share=0", *words)
        before = made.trainable()
        made.train(Path("unused"))
        return tuple(
            max((weight - before[name]).abs().max().item() for name, weight in made.trainable().items() if part in name)
            for part in ("lora_A", "lora_B")
        )

    _, plain_b = moved()
    _, plus_b = moved("lora.loraplus_lr_ratio=16")
    assert plus_b == pytest.approx(16 * plain_b, rel=0.05)


def test_steps_are_counted_as_the_trainer_counts_them(make):
    made = make("trainer.max_steps=null", "trainer.epochs=1.5", "trainer.batch_size=5",
                "trainer.gradient_accumulation_steps=2")  # fmt: skip
    steps = optimizer_steps(made.plan.trainer, 24)
    assert steps == 5  # 5 batches an epoch make 3 steps; 1.5 epochs
    assert made.train(Path("unused")).optimizer_steps == steps


@pytest.mark.parametrize("method", ["full", "partial", "adalora", "prefix_tuning", "ln_tuning"])
def test_methods_train_on_a_bfloat16_base_with_float32_weights_of_their_own(method, random_qwen2, rows, tmp_path):
    words = (f"peft={method}", "model.dtype=bfloat16")
    base = load_base(plan_of(*overrides(random_qwen2, rows, tmp_path), *words)[0].model)
    made = prepared(random_qwen2, rows, tmp_path, *words, base=base)
    made.train(tmp_path)
    assert {weight.dtype for weight in made.trainable().values()} == {torch.float32}
    prompts = [prompt_of(example) for example in made.rows.splits["test"]]
    generation = made.plan.scoring.generation
    assert len(generate(made.model, base.tokenizer, prompts, generation, equal_lengths=True)) == len(prompts)
