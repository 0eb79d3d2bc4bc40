"""Training: labels and their audit, gradient checkpointing, seeds, and methods with optimizers of their own."""

from pathlib import Path

import pytest
import torch

from harness.config import schema
from harness.data.audit import label_audit
from harness.data.tokenize import prompt_of
from harness.errors import RunFault
from harness.models.base import load_base
from harness.plan.spec import optimizer_steps
from harness.scoring.generate import generate
from tests.support.batches import Spy
from tests.support.runs import command, overrides, plan_of, prepared, records_of, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words, rows=rows: prepared(random_qwen2, rows, tmp_path / "runs", *words)


def test_only_completion_and_end_of_text_are_labels_and_the_record_counts_what_the_model_saw(make):
    made = make("trainer.max_steps=3", "trainer.kernels=plain")  # one epoch
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
    # the blank before an answer is its own, where the merges of the tokenizer expect it
    assert sorted(texts) == sorted(f" {example.row.output}" for example in made.rows.splits["train"])
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


@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_nothing_below_the_lowest_trained_weight_is_passed_backward(make, checkpointing):
    made = make("peft=partial", "partial.last_layers=1", f"trainer.gradient_checkpointing={checkpointing}")
    layers = made.model.get_base_model().model.layers
    needed: dict[int, bool] = {}
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(
            lambda module, args, number=number: (
                needed.update({number: args[0].requires_grad}) if module.training else None
            )
        )
    made.train(Path("unused"))
    assert needed == dict.fromkeys(range(len(layers)), False)


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


def test_weights_that_break_in_the_last_step_are_noticed_by_the_validation_loss(make):
    made = make("trainer.max_steps=1", "trainer.learning_rate=1e30")
    with pytest.raises(RunFault, match=r"validation loss is not finite .* after optimizer step 1"):
        made.train(Path("unused"))


def test_a_run_with_a_loss_that_is_not_finite_leaves_a_failed_record_with_a_hint(random_qwen2, rows, tmp_path):
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
    assert len(
        generate(
            made.model, base.tokenizer, prompts, generation, stops=[base.tokenizer.eos_token_id], equal_lengths=True
        )
    ) == len(prompts)
