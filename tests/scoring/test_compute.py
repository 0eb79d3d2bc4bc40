"""All metrics together: published values, the range of values, and inputs that cannot be scored."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.catalog import SCORES, answer_metrics
from harness.scoring.compute import compute_metrics, compute_with_rows, metric_folder
from harness.scoring.text import tokenization
from tests.support.answers import ANSWERS, WORDY
from tests.support.paths import ROOT

ALL = list(answer_metrics())


def test_bleu_and_chrf_equal_the_values_in_sacrebleus_readme() -> None:
    predictions = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    values, signatures = compute_metrics(["bleu", "chrf"], predictions, references, None, "13a")
    assert round(values["bleu"], 2) == 48.53
    assert round(values["chrf"], 2) == 59.73
    assert signatures["bleu"].startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=3)), min_size=1, max_size=4))
@pytest.mark.parametrize("tokenize", ["zh", "char", "jieba"])
def test_every_score_lies_in_0_to_100(tokenize: str, rows: list[tuple[str, list[str]]]) -> None:
    predictions, references = [row[0] for row in rows], [row[1] for row in rows]
    values, signatures = compute_metrics(ALL, predictions, references, ["颗粒"] * len(rows), tokenize)
    assert list(values) == list(signatures) == ALL
    assert all(0 <= value <= 100 for value in values.values())


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(WORDY, min_size=1, max_size=4), tokenize=st.sampled_from(["zh", "char", "jieba"]))
def test_identical_text_scores_100(answers: list[str], tokenize: str) -> None:
    names = ["exact_match", "token_f1", "rouge_l", "chrf"]
    values, _ = compute_metrics(names, answers, [[answer] for answer in answers], None, tokenize)
    assert values == dict.fromkeys(names, pytest.approx(100))


def test_faults_are_raised_together() -> None:
    with pytest.raises(ValueError, match="unknown; choose") as raised:
        compute_metrics(["bleu", "blue", "names_target"], ["a", "b"], [["a"]], None, "zh-cn")
    message = str(raised.value)
    for part in (
        "metric 'blue'",
        "tokenize='zh-cn'",
        "references: 1 rows for 2",
        "names_target needs targets",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("predictions", "references", "targets", "message"),
    [
        ([], [], None, "predictions: 0 rows"),
        (["a"], [[]], None, r"references\[0\] is empty"),
        (["a"], ["a"], None, "a row is a string"),
        (["a"], [["a"]], ["a", "b"], "targets: 2 rows for 1"),
    ],
)
def test_unscorable_input_says_what_is_wrong(predictions, references, targets, message) -> None:
    with pytest.raises(ValueError, match=message):
        compute_metrics(["exact_match"], predictions, references, targets, "zh")


def test_english_tokenizer_on_chinese_references_is_refused() -> None:
    with pytest.raises(ValueError, match="use zh, char or jieba"):
        compute_metrics(["rouge_l"], ["感冒"], [["感冒"]], None, "13a")
    assert compute_metrics(["chrf"], ["感冒"], [["感冒"]], None, "13a")[0]["chrf"] == pytest.approx(100)


def test_scoring_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tokenization.jieba_dictionary.cache_clear()
    compute_metrics(ALL, ["感冒"], [["感冒"]], ["感冒"], "jieba")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_loads_no_heavy_library() -> None:
    code = "import sys, harness.scoring.compute; sys.exit(bool({'evaluate', 'torch', 'jieba'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_catalog_lists_the_modules_on_disk() -> None:
    folders = {file.parent.name for file in (ROOT / "harness" / "scoring" / "metrics").glob("*/*.py")}
    assert folders == set(ALL)
    assert all((metric_folder(name) / f"{name}.py").is_file() for name in ALL)


def test_a_mean_over_rows_comes_with_the_value_of_each_row():
    names = [name for name in answer_metrics() if SCORES[name].aggregation == "mean over rows"]
    predictions, references = ["the sky is blue", "4"], [["the sky is grey"], ["4"]]
    values, _, rows = compute_with_rows([*names, "bleu"], predictions, references, ["sky", "5"], "13a")
    assert set(rows) == set(names)
    for name in names:
        assert len(rows[name]) == 2
        assert sum(rows[name]) / 2 == pytest.approx(values[name])
    assert rows["exact_match"] == [0.0, 100.0]
