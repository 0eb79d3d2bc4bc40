"""Weights of rows: the loss is the weighted mean over the tokens of a step, however its passes are computed."""

import json

import pytest
import torch
from torch.nn import functional

from harness.data.tokenize import IGNORED
from harness.errors import RunFault
from harness.training.packed.eligible import why_alone
from harness.training.row_weights import weighted_loss
from tests.support.runs import command, loaded, logits_of, overrides, plan_of, prepared, records_of, write_rows

COLUMN = "data.columns.weight=times"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Eight training rows that count 0.5, 1, 1.5, ..."""
    folder = write_rows(tmp_path_factory.mktemp("rows"), train_rows=8)
    texts = (folder / "train.jsonl").read_text().splitlines()
    weighed = [json.loads(text) | {"times": 0.5 * (number + 1)} for number, text in enumerate(texts)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in weighed))
    return folder


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words: prepared(random_qwen2, rows, tmp_path / "runs", "trainer.max_steps=1", *words)


def expected(made, weights):
    """The weighted mean of the losses of all labeled tokens, from the logits of the untrained model."""
    examples = made.rows.splits["train"]
    logits_btv = logits_of(made.model, examples)
    total = count = 0.0
    for example, logits_tv, weight in zip(examples, logits_btv, weights, strict=True):
        labels = torch.tensor(example.labels)
        losses = functional.cross_entropy(
            logits_tv[: len(labels) - 1], labels[1:], reduction="none", ignore_index=IGNORED
        )
        total += weight * float(losses.sum())
        count += weight * int((labels[1:] != IGNORED).sum())
    return total / count


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("trainer.kernels=plain",),
        ("trainer.batch_size=3", "trainer.gradient_accumulation_steps=3"),
        ("trainer.batch_size=2", "trainer.gradient_accumulation_steps=4", "trainer.kernels=plain"),
        ("peft=prompt_tuning",),
        ("peft=full",),
        ("trainer.gradient_checkpointing=true",),
    ],
)
def test_the_loss_of_a_step_is_the_weighted_mean_over_its_tokens(make, tmp_path, words):
    made = make(COLUMN, *words)
    weights = [row.row.weight for row in made.rows.splits["train"]]
    assert weights == [0.5 * (number + 1) for number in range(8)]
    wanted = expected(made, weights)
    assert wanted != pytest.approx(expected(made, [1.0] * 8), rel=1e-4)
    assert made.train(tmp_path / "scratch").curve[0]["loss"] == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_those_of_the_weighted_mean_in_both_kinds_of_passes(make, tmp_path):
    norms = []
    for words in ((), ("trainer.kernels=plain",), ("trainer.batch_size=2", "trainer.gradient_accumulation_steps=4")):
        norms.append(
            make(COLUMN, "lora.init_lora_weights=gaussian", *words).train(tmp_path / "s").curve[0]["grad_norm"]
        )
    usual = make("lora.init_lora_weights=gaussian").train(tmp_path / "s").curve[0]["grad_norm"]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)
    assert norms[0] != pytest.approx(usual, rel=1e-3)


def test_weights_that_are_equal_change_nothing(make, tmp_path):
    usual = make().train(tmp_path / "a")
    twice = make("data.class_weights={blue: 2, green: 2, black: 2, white: 2, red: 2, yellow: 2}").train(tmp_path / "b")
    assert twice.curve[0]["loss"] == pytest.approx(usual.curve[0]["loss"], rel=1e-6)
    assert twice.validation[0]["loss"] == pytest.approx(
        usual.validation[0]["loss"], rel=1e-4
    )  # which is never weighted


def test_record_says_how_rows_count_and_other_runs_stay_comparable(random_qwen2, rows, tmp_path):
    words = overrides(random_qwen2, rows, tmp_path / "runs")
    done = command(*words, COLUMN, "data.class_weights={blue: 2}")
    assert done.code == 0, done.err
    [record] = records_of(tmp_path / "runs").values()
    assert record["audit"]["row_weights"] == "1 to 7, mean 2.75"  # rows 1 and 7 are blue
    assert "training rows count by their weights" in done.err
    plan, usual = plan_of(*words, COLUMN)[0], plan_of(*words)[0]
    assert plan.fingerprint != usual.fingerprint
    assert plan.protocol == usual.protocol  # the baseline is shared


def test_a_model_with_a_loss_of_its_own_is_refused(random_qwen2):
    model = loaded(random_qwen2).model
    with pytest.raises(RunFault, match="a loss of its own"), weighted_loss(model, torch.ones(2)):
        pass


def test_such_a_run_trains_alone(random_qwen2, rows, tmp_path):
    words = overrides(random_qwen2, rows, tmp_path / "runs")
    assert "data.columns.weight" in why_alone(plan_of(*words, COLUMN)[0])
