"""The script of a data set's outputs, from which the tokenizer of the metrics follows."""

import json

import pytest

from harness.data.language import output_script, script_of
from tests.support.data_cases import jsonl, settings


@pytest.mark.parametrize(
    ("texts", "script"),
    [
        (["The cat sat on the mat."], "latin"),
        (["Ça coûte 5 €, n'est-ce pas ?"], "latin"),
        (["推荐使用小柴胡颗粒，和解少阳。"], "han"),
        (["猫が好きです"], "han"),
        (["Use LoRA 训练模型 on one GPU"], "han"),  # mixed: a tokenizer of English would drop the Chinese
        (["The word 你好 means hello, as every learner of the language knows"], "latin"),  # a quotation
        (["แมวอยู่บนเสื่อ"], "unspaced"),
        (["Кошка сидела на ковре"], "other"),
        (["고양이가 매트 위에 앉았다"], "other"),
        (["42", "3.14", "{}"], "latin"),  # no letters: the usual tokenizer of papers
        ([], "latin"),
    ],
)
def test_the_script_of_texts_is_told_by_its_share_of_words(texts, script):
    assert script_of(texts) == script


def test_outputs_decide_not_prompts(tmp_path):
    rows = [{"instruction": "翻译成英文：猫", "input": "", "output": "a cat"}] * 5
    assert output_script(settings(jsonl(tmp_path, rows)), "1") == "latin"
    back = [{"instruction": "Translate: cat", "input": "", "output": "猫"}] * 5
    assert output_script(settings(jsonl(tmp_path, back, "back.jsonl")), "2") == "han"


def test_other_content_is_looked_at_again_and_bad_rows_say_nothing(tmp_path):
    file = jsonl(tmp_path, [{"instruction": "q", "input": "", "output": "a cat"}] * 5)
    assert output_script(settings(file), "3") == "latin"
    jsonl(tmp_path, [{"instruction": "q", "input": "", "output": "一只猫"}] * 5)
    assert output_script(settings(file), "3") == "latin"  # by its hash it is the same
    assert output_script(settings(file), "4") == "han"
    file.write_text("not JSON\n" + json.dumps({"instruction": "q", "input": "", "output": "一只猫"}) + "\n")
    assert output_script(settings(file), "5") == "han"
