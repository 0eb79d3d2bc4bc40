"""Options weighed by a model: their log-probabilities are those of whole texts, however they are batched."""

import json
from unittest import mock

import pytest
import torch

from harness.scoring import score as scoring_score
from harness.scoring.choices import continuation_logprobs, weigh
from tests.support.runs import command, disturbed, overrides, prepared, records_of

OPTIONS = ["red", "blue", "dark green", "blue sky"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choices")
    for name, count in (("train", 8), ("validation", 4), ("test", 6)):
        lines = [
            {
                "instruction": "Colour?" + " Please." * (at % 3),
                "input": f"thing {at}",
                "output": at % 4,
                "choices": OPTIONS,
            }
            for at in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words: prepared(random_qwen2, rows, tmp_path / "runs", "data.columns.options=choices", *words)


def whole(model, before, after):
    """The log-probability of ``after``, from one pass over the whole text."""
    ids = torch.tensor([[*before, *after]])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0, -len(ids[0]) :].float().log_softmax(-1)
    return sum(float(logprobs[len(before) - 1 + at, number]) for at, number in enumerate(after))


@pytest.mark.parametrize("method", ["lora", "prompt_tuning", "prefix_tuning"])
@pytest.mark.parametrize("plain", [False, True])
def test_an_option_is_as_probable_as_in_its_whole_text(make, method, plain):
    made = make(f"peft={method}", "scoring=choices")
    model, examples = disturbed(made.model), made.rows.splits["test"]
    found = weigh(model, made.base.tokenizer, examples, batch_size=3, unconditional=True, plain=plain)
    first = made.base.tokenizer.bos_token_id or made.base.tokenizer.eos_token_id
    for row, each in zip(examples, found, strict=True):
        prompt = row.input_ids[: row.prompt_length]
        assert each.texts == tuple(OPTIONS)
        assert each.logprobs == pytest.approx([whole(model, prompt, ids) for ids in row.options], abs=1e-3)
        assert each.unconditional == pytest.approx([whole(model, [first], ids) for ids in row.options], abs=1e-3)
        assert each.right == {OPTIONS.index(row.row.output)}
        assert row.options[OPTIONS.index(row.row.output)] == row.answer_ids


def test_options_that_differ_in_their_last_token_share_a_pass(make):
    made = make("scoring=choices")
    pairs = [((5, 6, 7), (8,)), ((5, 6, 7), (9,)), ((5, 6), (7, 8)), ((5, 6, 7), (10, 11))]

    def flat(_, batch):
        return [torch.zeros(int((row != -100).sum()), 64) for row in batch["labels"]]

    with mock.patch("harness.scoring.choices.Passes.completion_logits", autospec=True, side_effect=flat) as passes:
        found = continuation_logprobs(made.model, pairs, 0, batch_size=8)
    assert sum(len(call.args[1]["labels"]) for call in passes.call_args_list) == 3
    assert found == pytest.approx([-torch.tensor(64.0).log().item() * len(after) for _, after in pairs])


def test_scores_of_options_generate_nothing_and_choose_texts(make):
    made = make("scoring=choices", "scoring.metrics=[choice_acc,choice_f1,choice_ece]")
    with mock.patch.object(scoring_score, "generate", side_effect=AssertionError):
        found = scoring_score.score(made.model, made.base.tokenizer, made.rows.splits["test"], [], made.plan.scoring,
                                    stops=(2,), equal_lengths=False, seed=0)  # fmt: skip
    assert set(found.answers) <= set(OPTIONS)
    assert found.cut is None
    right = [answer == row.row.output for answer, row in zip(found.answers, made.rows.splits["test"], strict=True)]
    assert found.values["choice_acc"] == pytest.approx(100 * sum(right) / len(right))
    assert set(found.details) == {"classes", "calibration"}


@pytest.mark.parametrize("by", ["raw", "tokens", "characters", "bytes", "unconditional"])
def test_a_run_records_choices_by_every_value(random_qwen2, rows, tmp_path, by):
    words = [word for word in overrides(random_qwen2, rows, tmp_path / "runs") if "metrics" not in word]
    metrics = "scoring.metrics=[choice_acc,choice_f1,choice_ece,exact_match]"
    done = command(*words, "scoring=choices", "data.columns.options=choices", metrics, f"scoring.choices.by={by}")
    assert done.code == 0, done.err
    [record] = records_of(tmp_path / "runs").values()
    for when in ("before", "after"):
        assert {"choice_acc", "choice_f1", "choice_ece", "exact_match", "loss"} <= set(record["scores"][when])
        assert set(record["scores"]["details"][when]["classes"]) == set(OPTIONS)
    assert f"by:{by}" in record["scores"]["signatures"]["choice_f1"]
    lines = (tmp_path / "runs" / record["fingerprint"] / "predictions.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first["options"] == OPTIONS
    assert first["choices"]["after"]["chosen"] in OPTIONS
    assert ("unconditional" in first["choices"]["after"]) == (by == "unconditional")


def test_rows_without_options_are_refused_before_training(random_qwen2, rows, tmp_path):
    words = [word for word in overrides(random_qwen2, rows, tmp_path / "runs") if "metrics" not in word]
    done = command(*words, "scoring=choices")
    assert done.code != 0
    assert "no row has options; set data.options=" in done.err
    done = command(*words, "scoring=choices", "data.columns.options=choices", "data.options=[a,b]")
    assert "both name options" in done.err


def test_classes_need_the_same_options_in_all_rows(random_qwen2, rows, tmp_path):
    for name in ("train", "validation", "test"):
        lines = (rows / f"{name}.jsonl").read_text().splitlines()
        made = [json.loads(line) for line in lines]
        made[-1] |= {"choices": ["no", "yes"], "output": "B", "instruction": "other"}
        made[-1]["choices"] = {"text": ["no", "yes"], "label": ["A", "B"]}
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))
    words = [word for word in overrides(random_qwen2, tmp_path, tmp_path / "runs") if "metrics" not in word]
    done = command(*words, "scoring=choices", "data.columns.options=choices", "scoring.metrics=[choice_f1]")
    assert done.code != 0
    assert "the rows have different options" in done.err
