"""DPO: its loss against TRL's own code, the reference, accumulation, resuming, and what records and checks say."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from harness.config.schema import Dpo
from harness.data.collate import with_needed_logits
from harness.plan.continuation import find_source
from harness.plan.read import read_config
from harness.training import checkpoints, train
from harness.training.preferences import (
    PLACES,
    Preferences,
    collate_pairs,
    log_probs,
    numbered,
    preference,
    reference_log_probs,
)
from tests.support.configs import compose
from tests.support.runs import (
    COLORS,
    THINGS,
    Cut,
    command,
    cut_at,
    disturbed,
    loaded,
    logits_of,
    overrides,
    prepared,
    records_of,
)

OWN = ("data=preference", "data.columns.instruction=prompt", "trainer.objective=dpo", "trainer.learning_rate=0.01")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Pairs of colors: the right one is chosen, a longer text or another color is rejected."""
    folder = tmp_path_factory.mktemp("pairs")
    number = 0
    for name, count in (("train", 10), ("validation", 4), ("test", 4)):
        made = []
        for _ in range(count):
            other = COLORS[(number + 1) % 6] + (" or so, I believe" if number % 3 == 0 else "")
            asked = f"Colour of {THINGS[number % 10]} {number}?" + " Please." * (number % 4)
            made.append({"prompt": asked, "chosen": COLORS[number % 6], "rejected": other})
            number += 1
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return folder


@pytest.fixture
def words(random_qwen2, rows, tmp_path):
    kept = [word for word in overrides(random_qwen2, rows, tmp_path / "runs") if word != "data=alpaca"]
    return [*kept, *OWN]


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *more: prepared(random_qwen2, rows, tmp_path / "runs", *OWN, *more)


def pad_of(made):
    return int(made.base.tokenizer.pad_token_id)


def batch_of(made, count=4):
    examples = numbered(made.rows.splits["train"])[:count]
    return collate_pairs(examples, pad_of(made))


def ours(made, settings, batch):
    """The mean loss of a batch, with the untouched base as the reference."""
    reference = reference_log_probs(made.base.model, made.rows.splits["train"], pad_of(made), 4)
    state = Preferences(settings, reference, torch.zeros(0, 2))
    return state.loss(made.model, batch, None), state.figures()


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_the_loss_is_that_of_trl_on_the_same_batch(make, random_qwen2, tmp_path, beta):
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    made = make("lora.r=4", "lora.lora_alpha=8", "lora.target_modules=[q_proj,v_proj]")
    disturbed(made.model)
    batch = batch_of(made)
    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"), beta=beta, use_cpu=True, report_to="none", bf16=False, disable_dropout=True
    )
    pairs = [{"prompt": "Colour of sky?", "chosen": " blue", "rejected": " red"}]
    theirs = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(random_qwen2),
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=made.base.tokenizer,
        peft_config=LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, task_type="CAUSAL_LM"
        ),
    )
    set_peft_model_state_dict(theirs.model, get_peft_model_state_dict(made.model))
    theirs.model.eval()
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "completion_mask": (batch["labels"] != -100).long(),
    }
    with torch.no_grad():
        wanted = float(theirs.compute_loss(theirs.model, inputs))
        swapped = {name: torch.cat([value[4:], value[:4]]) for name, value in inputs.items()}
        turned = float(theirs.compute_loss(theirs.model, swapped))
        found, figures = ours(made, Dpo(beta=beta, label_smoothing=0.0), batch)
        smoothed, _ = ours(made, Dpo(beta=beta, label_smoothing=0.2), batch)
    assert wanted != pytest.approx(math.log(2), rel=1e-3)  # the adapter has an effect
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    assert float(smoothed) == pytest.approx(0.8 * wanted + 0.2 * turned, rel=1e-5)
    metrics = theirs._metrics["eval"]
    assert figures["margin"] == pytest.approx(metrics["rewards/margins"][0], rel=1e-4)
    assert figures["accuracy"] == pytest.approx(metrics["rewards/accuracies"][0])


def test_the_loss_is_the_papers_formula():
    policy, reference = torch.tensor([-1.0, -2.0, -3.0, -1.5]), torch.tensor([-1.5, -2.0, -2.0, -2.0])
    found = preference(policy, reference, Dpo(beta=0.5, label_smoothing=0.1))
    margins = torch.tensor([0.5 * (0.5 - -1.0), 0.5 * (0.0 - 0.5)])
    assert torch.allclose(found.margins, margins)
    assert torch.allclose(
        found.losses, -0.9 * torch.log(torch.sigmoid(margins)) - 0.1 * torch.log(torch.sigmoid(-margins))
    )
    assert int(found.correct) == 1


@pytest.mark.parametrize("method", ["lora", "full", "prompt_tuning"])
def test_log_probabilities_are_sums_over_the_answer_and_its_end(make, method):
    made = make(f"peft={method}")
    batch = batch_of(made)
    found = log_probs(made.model.eval(), batch)
    assert torch.allclose(found, log_probs(made.model, with_needed_logits(batch)), atol=1e-4)
    for at, row in enumerate(made.rows.splits["train"][:4]):
        for place, ids in ((at, row.input_ids), (at + 4, row.rejected_ids)):
            example = SimpleNamespace(input_ids=ids, labels=(*[-100] * row.prompt_length, *ids[row.prompt_length :]))
            example.prompt_length = row.prompt_length
            logits = logits_of(made.model, [example])[0]
            answer = torch.tensor(ids[row.prompt_length :])
            steps = functional.log_softmax(logits[row.prompt_length - 1 : len(ids) - 1], dim=-1)
            assert float(found[place].detach()) == pytest.approx(
                float(steps.gather(1, answer[:, None]).sum()), rel=1e-4
            )


def test_before_training_every_loss_is_the_logarithm_of_two(make, tmp_path):
    made = make("trainer.max_steps=4", "trainer.evaluations=4", "trainer.batch_size=5")
    done = made.train(tmp_path / "scratch")
    first, last = done.curve[0], done.curve[-1]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert first["margin"] == pytest.approx(0.0, abs=1e-5)
    assert last["loss"] < first["loss"]
    assert last["margin"] > 0
    assert set(done.validation[0]) == {"step", "loss", "margin", "accuracy"}
    assert 0 <= done.validation[-1]["accuracy"] <= 1


def test_accumulated_batches_are_one_step_over_all_pairs(make, tmp_path):
    curves = []
    for passes in (("trainer.batch_size=6",), ("trainer.batch_size=2", "trainer.gradient_accumulation_steps=3")):
        curves.append(make("trainer.max_steps=4", *passes).train(tmp_path / passes[0][-1]).curve)
    for whole in curves:
        del whole[0]["accuracy"]  # before the first step, margins are zero up to rounding
    for one, other in zip(*curves, strict=True):  # the second step of an epoch has 4 pairs
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_a_run_that_is_cut_resumes_bit_for_bit(make, tmp_path, monkeypatch):
    words = ("trainer.max_steps=6", "trainer.batch_size=5", "trainer.log_every=4", "trainer.evaluations=2")
    settings = checkpoints.CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=2)

    whole = make(*words)
    expected = whole.train(tmp_path / "a")
    with pytest.raises(Cut):  # two steps after the checkpoint, and two before the next point of the curve
        make(*words).train(tmp_path / "b", settings, log=cut_at(4))
    resumed = make(*words)
    done = resumed.train(tmp_path / "c", settings)
    assert (done.curve, done.validation, done.best_step) == (expected.curve, expected.validation, expected.best_step)
    assert all(torch.equal(weight, resumed.trainable()[name]) for name, weight in whole.trainable().items())
    measured = []
    monkeypatch.setattr(
        train, "reference_log_probs", lambda model, rows, *_: measured.extend(rows) or torch.zeros(0, 2)
    )
    again = make(*words).train(tmp_path / "d", settings)  # from the checkpoint of the end, which needs no reference
    assert (again.curve, again.validation, measured) == (expected.curve, expected.validation, [])


def test_a_training_from_finished_weights_has_those_as_its_reference(make, random_qwen2, words, tmp_path):
    first = make("lora.r=4")
    disturbed(first.model)
    first.model.save_pretrained(str(tmp_path / "adapter"))
    plan, options = read_config(compose(*words, "lora.r=4", f"trainer.continue_from={tmp_path / 'adapter'}"))
    from harness.pipeline import steps, tune
    from harness.pipeline.cache import ProcessCache
    from tests.support.runs import Prepared

    base = loaded(random_qwen2)
    audited = steps.tokenize(plan, ProcessCache(), base)
    attached = tune.attach(plan, base, audited, find_source(plan.trainer.continue_from, options.runs_dir))
    made = Prepared(plan, base, audited, attached, lambda folder: None)
    assert any("the reference is the weights with which training begins" in note for note in attached.notes)
    assert made.train(tmp_path / "scratch").curve[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)


def test_record_and_report_say_what_was_learned(words, tmp_path):
    done = command(*words, "trainer.evaluations=2")
    assert done.code == 0, done.err
    [record] = records_of(tmp_path / "runs").values()
    assert record["training"]["curve"][0].keys() >= {"margin", "accuracy"}
    assert record["training"]["validation"][0].keys() == {"step", "loss", "margin", "accuracy"}
    assert (record["audit"]["labels"], record["audit"]["rows"]) == ("dpo", 10)
    assert any("the reference is the untouched base" in note for note in record["notes"])
    assert command("stage=report", f"runs_dir={tmp_path / 'runs'}").code == 0


def test_places_of_a_batch_are_those_of_the_training_rows(make):
    made = make()
    examples = numbered(made.rows.splits["train"])
    batch = collate_pairs([examples[3], examples[1]], pad_of(made))
    assert batch[PLACES].tolist() == [3, 1]
    assert batch["input_ids"].shape[0] == 4


@pytest.mark.slow
def test_the_embedded_pairs_are_learned_on_a_cpu(tmp_path):
    done = command(
        *("data=medicine_preference", "trainer.objective=dpo", "trainer.learning_rate=1e-3", "trainer.epochs=2"),
        *("trainer.threads=1", f"runs_dir={tmp_path}", "scoring=quick", "data.limits.test=8"),
    )
    assert done.code == 0, done.err
    [record] = records_of(tmp_path).values()
    first, last = record["training"]["validation"][0], record["training"]["validation"][-1]
    assert last["loss"] < first["loss"] < math.log(2)
    assert last["accuracy"] > 0.5
