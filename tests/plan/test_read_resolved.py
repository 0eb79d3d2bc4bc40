"""What follows from other settings stands in the plan as a value."""

import json

import pytest

from harness.scoring.catalog import AUTO, SCORES
from tests.support.runs import plan_of


@pytest.fixture
def rows(tmp_path):
    """A data set whose outputs are this text; the words that name it."""

    def written(output):
        row = {"instruction": "q", "input": "", "output": output}
        file = tmp_path / f"{abs(hash(output))}.jsonl"
        file.write_text((json.dumps(row, ensure_ascii=False) + "\n") * 20)
        return "data=alpaca", f"data.path={file}"

    return written


@pytest.mark.parametrize(
    ("output", "tokenize", "f1"),
    [("The cat sat.", "13a", "squad"), ("推荐小柴胡颗粒。", "zh", "mixed"), ("แมวอยู่บนเสื่อ", "char", "char")],
)
def test_tokenize_follows_the_data(weightless, rows, output, tokenize, f1):
    plan, _ = plan_of(f"model.path={weightless}", *rows(output))
    assert plan.scoring.tokenize == tokenize
    assert SCORES["token_f1"].tokenizers[tokenize] == f1
    named, _ = plan_of(f"model.path={weightless}", *rows(output), f"scoring.tokenize={tokenize}")
    assert named.fingerprint == plan.fingerprint


def test_an_explicit_tokenizer_stays(weightless, rows):
    plan, _ = plan_of(f"model.path={weightless}", *rows("The cat sat."), "scoring.tokenize=jieba")
    assert plan.scoring.tokenize == "jieba"


def test_the_embedded_data_are_chinese(weightless):
    assert plan_of(f"model.path={weightless}")[0].scoring.tokenize == "zh"


def test_rows_on_the_hub_that_cannot_be_read_leave_the_choice_to_scoring(weightless, monkeypatch):
    def silent(*_, **__):
        from harness.errors import DataFault

        raise DataFault("no network")

    monkeypatch.setattr("harness.data.dataset.read_hub", silent)
    plan, _ = plan_of(f"model.path={weightless}", "data=alpaca", "data.path=acme/nothing_here")
    assert plan.scoring.tokenize == AUTO


@pytest.mark.parametrize("template", ["lesson", "lesson_exact"])
def test_the_lessons_objective_keeps_the_published_prompt(weightless, template):
    words = (f"model.path={weightless}", f"data.template={template}")
    assert plan_of(*words, "trainer.objective=lesson")[0].data.template.value == "lesson_exact"
    assert plan_of(*words)[0].data.template.value == template
