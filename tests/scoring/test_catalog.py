"""The catalog: a row must be whole, and it is all that a new metric needs beside its module."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigFault
from harness.scoring import catalog
from harness.scoring.catalog import SCORES, TOKENIZE, Score, decimals
from harness.sweep.search_space import StudySettings
from tests.support.paths import ROOT

ROW = {
    "name": "words_missing",
    "description": "share of the reference's words that the answer lacks",
    "direction": "minimize",
    "unit": "percent",
    "aggregation": "mean over rows",
    "decimals": 2,
    "needs": "references",
}

MODULE = '''
"""Share of the reference's words that the answer lacks, mean over rows, in percent."""

import evaluate

from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text.tokenization import tokenize_text  # From: .


class WordsMissing(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="d", citation="c", inputs_description="i", features=inputs.text_features()
        )

    def _compute(self, predictions=None, references=None):
        shares = []
        for prediction, [reference] in zip(predictions, inputs.reference_lists(references), strict=True):
            words = set(tokenize_text(reference, "rouge"))
            shares.append(len(words - set(tokenize_text(prediction, "rouge"))) / len(words))
        return {"words_missing": inputs.percent(shares), "signature": "tok:rouge"}
'''

USE = """
import sys
from pathlib import Path
import harness
assert Path(harness.__file__).is_relative_to(sys.argv[1]), harness.__file__

from harness.report.cells import TableCell
from harness.report.table import build_table
from harness.scoring.compute import compute_metrics
from harness.sweep.search_space import StudySettings

values, signatures = compute_metrics(["words_missing"], ["one two"], [["one two three four"]], None, "zh")
assert (values, signatures) == ({"words_missing": 50.0}, {"words_missing": "tok:rouge"})
scores = {"before": {"words_missing": 75.0}, "after": values, "signatures": signatures}
record = {"status": "finished", "scores": scores, "training": {}, "error": None, "code": {"version": "0"},
          "device": {"type": "cpu", "name": "cpu"}, "audit": {}, "memory_bytes": {}}
table = build_table([TableCell("", "a", "lora", "")], {"a": record})
column = table.columns[-1]
assert (column.label, column.show(table.rows[0])) == ("words_missing ↓", "50.00 (-25.00)"), column
assert {"words_missing", "words_missing_change"} <= table.rows[0].keys()
study = StudySettings("scores.after.words_missing", None, 20, 1, "tpe", 0)
study.check()
assert study.towards == "minimize"
"""


@pytest.mark.slow
def test_a_metric_is_its_module_and_one_row(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "harness" / "scoring" / "metrics" / "words_missing"
    folder.mkdir()
    (folder / "words_missing.py").write_text(MODULE.lstrip(), encoding="utf-8")
    file = tmp_path / "harness" / "scoring" / "catalog.py"
    old = file.read_text(encoding="utf-8")
    arguments = ", ".join(f"{key}={value!r}" for key, value in ROW.items())
    new = old.replace("_ROWS = (\n", f"_ROWS = (\n    Score({arguments}),\n")
    assert new != old
    file.write_text(new, encoding="utf-8")
    command = [sys.executable, "-c", USE, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_direction_is_required() -> None:
    with pytest.raises(TypeError, match="direction"):
        Score(**{key: value for key, value in ROW.items() if key != "direction"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "down"}, "'down' is unknown; choose one of maximize, minimize"),
        ({"unit": "%"}, "'%' is unknown; choose one of percent"),
        ({"aggregation": "median"}, "'median' is unknown; choose one of mean over rows"),
        ({"tokenizers": {"zh": "mixed"}}, "give a tokenizer for each of zh, 13a, char, jieba"),
        ({"tokenizers": dict.fromkeys(TOKENIZE, "char"), "needs": None}, "only a metric of answers tokenizes"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"score words_missing: {message}"):
        Score(**ROW | change)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_direction_of_the_row_is_that_of_a_study(monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    monkeypatch.setitem(catalog.SCORES, "words_missing", Score(**ROW | {"direction": direction}))
    settings = StudySettings("scores.after.words_missing", None, 20, 1, "tpe", 0)
    settings.check()
    assert settings.towards == direction


@pytest.mark.parametrize("objective", ["scores.after.words_missing", "scores.after.validation_loss", "loss"])
def test_objective_that_is_not_a_score_of_the_record_is_refused(objective: str) -> None:
    with pytest.raises(
        ConfigFault, match=f"objective={objective} is unknown; choose one of validation_loss, scores.after"
    ):
        StudySettings(objective, None, 20, 1, "tpe", 0).check()


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("bleu", 0.5, 1),
        ("bleu", 100.0, 1),
        ("loss", 1.5, 3),
        ("perplexity", 99.9, 3),
        ("perplexity", 100.0, 1),
        ("perplexity", 10_000.0, 0),
        ("of_other_code", 50.0, 1),
    ],
)
def test_decimals_follow_the_row_and_the_size(name: str, size: float, expected: int) -> None:
    assert decimals(name, size) == expected


def test_scores_that_repeat_another_name_one_of_the_catalog() -> None:
    assert {score.repeats for score in SCORES.values()} - {None} <= set(SCORES)
