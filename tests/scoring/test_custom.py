"""Metrics of the user's own: how they are named, called and checked, and what a wrong one says."""

import json
import math
from dataclasses import replace

import pytest

from harness.data.rows import Row
from harness.data.tokenize import TokenizedRow
from harness.errors import ConfigFault, RunFault
from harness.scoring import catalog, custom
from harness.scoring.compute import compute_with_rows
from tests.support.own_code import importable, write

METRICS = """
import math
from harness.scoring.custom import metric

@metric(direction="minimize", unit="percent", decimals=1, description="short ones")
def short(predictions, references):
    return 100.0

@metric(scores={"low": "minimize", "high": "maximize"})
def both(predictions, references, topic=None, **columns):
    return {"low": len(columns), "high": 2}

def plain(predictions, references, input):
    return [float(len(text)) for text in input]

def spoils(predictions, references):
    predictions.clear()
    references[0].clear()
    return 1

def nan(predictions, references): return math.nan
def nan_if_empty(predictions, references): return 1.0 if predictions[0] else math.nan
def raises(predictions, references): raise ZeroDivisionError("no rows")
def words(predictions, references): return "good"
def nothing(predictions, references): return {}
def partly(predictions, references): return {"a": 1.0, "b": None}
def bleu(predictions, references): return 1.0
def loss(predictions, references): return 1.0
def wrong(answers, truth): return 1.0
def wants(predictions, references, topic): return 1.0
number = 3
"""
ANSWERS, REFERENCES = ["a", "bb"], [["a"], ["b", "bb"]]
COLUMNS = {"instruction": ["x", "y"], "input": ["", "abc"]}


@pytest.fixture(autouse=True)
def own(tmp_path):
    with importable(write(tmp_path, own_m=METRICS)):
        yield


def faults(*names, kept=()):
    return list(custom.metric_faults([f"own_m:{name}" for name in names], list(kept)))


def compute(name):
    return custom.compute(f"own_m:{name}", ANSWERS, REFERENCES, COLUMNS)


def test_a_declared_metric_is_known_before_it_is_computed_and_stands_before_the_losses():
    assert faults("short", "both") == []
    assert catalog.SCORES["short"].heading == "short ↓"
    assert (catalog.SCORES["short"].unit, catalog.SCORES["short"].description) == ("percent", "short ones")
    assert [catalog.SCORES[f"both_{key}"].direction for key in ("low", "high")] == ["minimize", "maximize"]
    names = list(catalog.SCORES)
    assert names.index("bleu") < names.index("short") < names.index("loss")
    assert "short" not in catalog.metric_names()


def test_a_number_a_number_per_row_and_a_dict_are_scores():
    assert compute("short") == ({"short": 100.0}, {})
    assert compute("both") == ({"both_low": 2.0, "both_high": 2.0}, {})
    assert compute("plain") == ({"plain": 1.5}, {"plain": [0.0, 3.0]})
    assert catalog.SCORES["plain"].aggregation == "mean over rows"


def test_its_values_stand_beside_those_of_the_harness_with_its_code_in_the_signature():
    values, signatures, rows = compute_with_rows(
        ["exact_match", "own_m:plain"], ANSWERS, REFERENCES, None, "char", COLUMNS
    )
    assert values == {"exact_match": 100.0, "plain": 1.5}
    assert signatures["plain"].startswith("own_m:plain|code:")
    assert rows["plain"] == [0.0, 3.0]


def test_a_metric_works_on_copies():
    answers, references = list(ANSWERS), [list(texts) for texts in REFERENCES]
    custom.compute("own_m:spoils", answers, references, {})
    assert (answers, references) == (ANSWERS, REFERENCES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "own_m has no missing"),
        ("number", "scoring.metrics=own_m:number is int 3; name a function"),
        ("bleu", "bleu is the name of a score of the harness; give the function another name"),
        ("loss", "loss is the name of a score of the harness"),
        ("wrong", "takes (answers, truth), and would be called with the keywords predictions, references"),
        ("wants", "takes topic, which is not known here; it may take"),
    ],
)
def test_what_cannot_be_a_metric_is_refused_before_anything_runs(name, message):
    [fault] = faults(name)
    assert message in fault


def test_a_column_that_is_kept_may_be_taken():
    assert faults("wants", kept=["topic"]) == []


def test_the_scores_that_metrics_give_are_known_as_far_as_they_are_declared():
    names = ["exact_match", "own_m:short", "own_m:both", "own_m:missing"]
    assert custom.measured(names) == {"exact_match", "short", "both_low", "both_high"}


def test_two_metrics_of_one_name_are_refused(tmp_path):
    write(tmp_path, own_n="def short(predictions, references): return 1")
    found = list(custom.metric_faults(["own_m:short", "own_n:short"], []))
    assert found == [
        "scoring.metrics=own_n:short and own_m:short would both be named short; rename one of the functions"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "scoring.metrics=own_m:nan is float nan for 2 answers, not a finite number"),
        ("raises", "own_m:raises fails on 2 answers (ZeroDivisionError: no rows); fix it, or leave it out"),
        ("words", "is str 'good' for 2 answers"),
        ("nothing", "returns an empty dict"),
        ("partly", "own_m:partly['b'] is NoneType None"),
    ],
)
def test_what_a_metric_must_not_return_names_metric_value_and_remedy(name, message):
    with pytest.raises(RunFault) as fault:
        compute(name)
    assert message in str(fault.value)


def examples(count=3):
    row = Row(1, "rows", "What?", "", "blue", (), None, kept={"topic": "colors"})
    return [TokenizedRow((1, 2), 1, replace(row, number=number), "What? ") for number in range(count)]


def test_the_columns_of_rows_are_their_parts_and_what_was_kept():
    found = custom.columns_of(examples(2))
    assert found["topic"] == ["colors", "colors"]
    assert sorted(found) == ["input", "instruction", "prompt", "target", "topic"]


def test_a_metric_is_tried_before_training_on_right_and_on_empty_answers():
    with pytest.raises(ConfigFault, match=r"own_m:nan_if_empty is float nan .* \(tried before training"):
        custom.tried(["own_m:nan_if_empty"], examples())
    assert custom.tried(["exact_match", "own_m:short"], examples()) == []


def test_a_direction_that_nobody_declared_is_noted():
    [note] = custom.tried(["own_m:plain"], examples())
    assert "plain counts as better if it is higher, because nothing says otherwise" in note


def test_a_record_keeps_what_reports_need():
    values, _ = compute("short")
    kept = json.loads(json.dumps(custom.definitions(values | {"loss": 1.0})))
    assert kept == {
        "short": {
            "description": "short ones", "direction": "minimize", "unit": "percent", "aggregation": "corpus",
            "decimals": 1,
        }
    }  # fmt: skip
    del catalog.SCORES["short"]
    catalog.learn_record({"scores": {"definitions": kept}})
    assert catalog.SCORES["short"].lower_is_better
    catalog.learn_record({"scores": {"definitions": {"odd": {"direction": "up"}, "bleu": kept["short"]}}})
    assert "odd" not in catalog.SCORES
    assert not catalog.SCORES["bleu"].lower_is_better


@pytest.mark.parametrize("wrong", [{"direction": "up"}, {"unit": "meters"}, {"scores": {"a": "down"}}])
def test_a_wrong_declaration_fails_where_it_stands(wrong):
    with pytest.raises(ValueError, match="choose one of"):
        custom.metric(**wrong)


def test_a_module_of_evaluate_is_a_metric(tmp_path):
    write(
        tmp_path,
        own_e="""
        import evaluate
        from datasets import Features, List, Value

        class Overlap(evaluate.Metric):
            several = False
            def _info(self):
                text = Value("string")
                features = Features(predictions=text, references=List(text) if self.several else text)
                return evaluate.MetricInfo(description="", citation="", features=features)
            def _compute(self, predictions, references):
                return {"hits": float(sum(one in other for one, other in zip(predictions, references)))}

        class Several(Overlap):
            several = True
        """,
    )
    assert list(custom.metric_faults(["own_e:Overlap", "own_e:Several"], [])) == []
    assert custom.compute("own_e:Several", ANSWERS, REFERENCES, COLUMNS)[0] == {"Several_hits": 2.0}
    assert custom.compute("own_e:Overlap", ANSWERS, [["a"], ["b"]], COLUMNS)[0] == {"Overlap_hits": 1.0}
    with pytest.raises(RunFault, match="it takes one reference per row, and some rows have several"):
        custom.compute("own_e:Overlap", ANSWERS, REFERENCES, COLUMNS)


def test_numbers_of_numpy_count(tmp_path):
    write(tmp_path, own_p="import numpy\ndef f(predictions, references): return numpy.float32(0.5)")
    assert math.isclose(custom.compute("own_p:f", ANSWERS, REFERENCES, {})[0]["f"], 0.5)
