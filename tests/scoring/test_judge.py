"""A second model grades answers: its mean grade, its prompt in the record, and what cannot work."""

import math
from dataclasses import replace

import pytest
import torch

from harness.config.schema import Judge, Template
from harness.data.messages import Message
from harness.data.rows import Row
from harness.data.tokenize import option_ids
from harness.errors import ModelFault
from harness.models.named import named_model
from harness.scoring.judge import filled, grade
from harness.scoring.judging import judge_digest, judge_faults, require_judge
from tests.support.runs import command, loaded, overrides, records_of, write_rows

ROW = Row(1, "here", "Sum?", "1 + 1", "2", (Message("user", "Sum?\n1 + 1"), Message("assistant", "2")), None)


@pytest.fixture
def judge(random_qwen2):
    prompt = "Q {question} R {reference} A {answer} grade"
    return Judge(model=str(random_qwen2), prompt=prompt, grades=["1", "2", "10"], template="lesson", batch_size=2)


def test_the_prompt_is_filled_once_and_braces_in_texts_stay():
    assert filled("Q {question}|{reference}|{answer}|{x}", ROW, ["2", "two"], "{question} {reference}") == (
        "Q Sum?\n1 + 1|2\ntwo|{question} {reference}|{x}"
    )


@pytest.mark.parametrize("template", [each.value for each in Template if each is not Template.chat])
def test_a_score_is_the_mean_grade_under_the_judges_probabilities(judge, template, random_qwen2):
    judge = replace(judge, template=template)
    found = grade(judge, [ROW, ROW], [["2"], ["2", "two"]], ["2", "three"])
    base = loaded(random_qwen2)
    for score, references, answer in zip(found.rows, (["2"], ["2", "two"]), ("2", "three"), strict=True):
        text = filled(judge.prompt, ROW, references, answer)
        asked = replace(ROW, instruction=text, input="", options=("1", "2", "10"),
                        messages=(Message("user", text), Message("assistant", "1")))  # fmt: skip
        [(prompt, options)] = option_ids([asked], judge.template, base.tokenizer)
        logprobs = []
        for ids in options:
            with torch.no_grad():
                logits = base.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
            logprobs.append(sum(float(logits[len(prompt) - 1 + at, number]) for at, number in enumerate(ids)))
        weights = [math.exp(each) for each in logprobs]
        assert score == pytest.approx(100 * (weights[1] + 2 * weights[2]) / sum(weights) / 2, abs=1e-3)
    assert found.value == pytest.approx(sum(found.rows) / 2)
    assert f"template:{template}" in found.signature


def test_a_run_records_the_judge_its_prompt_and_the_grade_of_each_row(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows", train_rows=8, others=4)
    words = [word for word in overrides(random_qwen2, rows, tmp_path / "runs") if "metrics" not in word]
    prompt = "scoring.judge.prompt='Grade {answer} against {reference}, please:'"
    done = command(*words, "scoring=judge", f"scoring.judge.model={random_qwen2}", prompt, "scoring.metrics=[judge]")
    assert done.code == 0, done.err
    [record] = records_of(tmp_path / "runs").values()
    assert 0 <= record["scores"]["after"]["judge"] <= 100
    assert record["plan"]["scoring"]["judge"]["prompt"] == "Grade {answer} against {reference}, please:"
    assert "grades:5" in record["scores"]["signatures"]["judge"]
    assert record["plan"]["inputs"]["judge"]


def test_what_cannot_judge_is_refused(judge, tmp_path):
    assert list(judge_faults(judge, wanted=True)) == []
    for changes, message in (
        ({"model": None}, "scoring.judge.model is null"),
        ({"prompt": "Grade"}, "lacks {answer}"),
        ({"grades": ["1", "1"]}, "two or more different texts"),
        ({"batch_size": 0}, "use at least 1"),
    ):
        [fault] = judge_faults(replace(judge, **changes), wanted=True)
        assert message in fault
    [fault] = judge_faults(judge, wanted=False)
    assert "has no effect" in fault
    assert list(judge_faults(replace(judge, model=None), wanted=False)) == []


def test_a_chat_template_that_the_judge_lacks_stops_the_run_before_training(judge, random_qwen2, tmp_path):
    require_judge(judge)
    require_judge(replace(judge, model=None))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(random_qwen2)
    if tokenizer.chat_template is None:
        with pytest.raises(ModelFault, match=r"scoring\.judge\.template=chat"):
            require_judge(replace(judge, template=Template.chat))
    else:
        require_judge(replace(judge, template=Template.chat))


def test_a_word_names_a_file_of_conf_a_folder_or_a_hub_model(judge, random_qwen2):
    assert named_model("tiny").source == "folder"
    assert named_model("qwen3_0_6b").path == "Qwen/Qwen3-0.6B"
    assert named_model(str(random_qwen2)).source == "folder"
    assert named_model("org/name").source == "hub"
    assert judge_digest(judge) == judge_digest(replace(judge, prompt="other {answer}"))
