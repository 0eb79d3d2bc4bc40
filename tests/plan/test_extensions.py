"""Code of the user's own in a plan: its hash in the fingerprint, and what is refused before anything runs."""

import pytest

from harness.config.schema import Tracker, Tracking
from harness.errors import ConfigFault, ModelFault
from harness.extensions import sources
from harness.plan import extensions
from harness.plan.read import read_config
from harness.plan.spec import plan_from_dict
from tests.support.configs import overridden
from tests.support.own_code import importable, write
from tests.support.runs import write_rows

CODE = """
def polite(predictions, references): return 1.0
TEXT = "Q: {{ instruction }} {{ input }}\\nA: {{ output }}"
def convert(row): return row
def two(row, other): return row
def costs(report): return {"title": "Costs"}
def nothing(): return 1
class Lines:
    def __init__(self, settings, start): ...
    def log(self, step, values): ...
"""


@pytest.fixture
def folder(tmp_path):
    sources.module_file.cache_clear()
    write(tmp_path, own_x=CODE, own_y=CODE)
    with importable(tmp_path):
        yield tmp_path
    sources.module_file.cache_clear()


def plan(weightless, folder, *words):
    rows = write_rows(folder / "rows")
    usual = (f"model.path={weightless}", "model.source=folder", f"data.path={rows}", "scoring.forgetting=null")
    splits = "data.splits={train: train.jsonl, validation: validation.jsonl, test: test.jsonl}"
    return read_config(overridden(*usual, splits, *words, onto=("data=alpaca", "peft=lora")))[0]


def faults(weightless, folder, *words):
    with pytest.raises(ConfigFault) as fault:
        plan(weightless, folder, *words)
    return str(fault.value)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("scoring.metrics=[exact_match,own_x:polite]", "metric own_x:polite_code"),
        ("data.template=own_x:TEXT", "template_code"),
        ("data.format=own_x:convert", "format_code"),
    ],
)
def test_the_content_of_code_is_part_of_the_fingerprint(weightless, folder, word, name):
    before = plan(weightless, folder, word)
    assert len(before.inputs[name]) == 16
    assert plan(weightless, folder, word).fingerprint == before.fingerprint
    write(folder, own_x=CODE + "\n# edited\n")
    edited = plan(weightless, folder, word)
    assert edited.fingerprint != before.fingerprint
    assert edited.protocol != before.protocol
    again = plan_from_dict(before.as_dict())
    assert again.fingerprint == before.fingerprint


def test_a_plan_without_own_code_has_no_hash_of_code(weightless, folder):
    assert not [name for name in plan(weightless, folder).inputs if name.endswith("_code")]


def test_text_of_a_template_is_part_of_the_fingerprint(weightless, folder):
    one, other = (plan(weightless, folder, f"data.template='{text} {{{{ output }}}}'") for text in ("A", "B"))
    assert one.fingerprint != other.fingerprint


def test_columns_that_are_kept_change_a_fingerprint_and_none_do_not(weightless, folder):
    usual = plan(weightless, folder)
    assert plan(weightless, folder, "data.columns.keep=[]").fingerprint == usual.fingerprint
    assert plan(weightless, folder, "data.columns.keep=[a]").fingerprint != usual.fingerprint


TRACKER = """
from harness.trackers.base import NoRun
class Lines(NoRun):
    def __init__(self, settings, start): ...
"""


def test_a_tracker_of_ones_own_changes_no_fingerprint(weightless, folder):
    write(folder, own_z=TRACKER)
    usual, other = plan(weightless, folder), plan(weightless, folder, "tracker.name=own_z:Lines")
    assert other.fingerprint == usual.fingerprint


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("scoring.metrics=[own_x:nothing]", "scoring.metrics=own_x:nothing takes ()"),
        ("scoring.metrics=[exactmatch]", "or an import path such as my_pkg.metrics:exactmatch"),
        ("scoring.template=own_x:missing", "scoring.template=own_x:missing: own_x has no missing"),
        ("data.format=own_x:two", "data.format=own_x:two must take one row"),
        ("data.format=alpacca", "data.format=alpacca is unknown; did you mean data.format=alpaca?"),
        ("tracker.name=own_x:Lines", "tracker.name=own_x:Lines lacks summary, table, artifact, record, finish"),
        ("tracker.name=wanbd", "tracker.name=wanbd is unknown; did you mean tracker.name=wandb?"),
        ("report.sections=[own_x:nothing]", "report.sections=own_x:nothing takes ()"),
        ("report.sections=[costs]", "report.sections=costs is not an import path"),
        ("select.split=validation select.score=polite", "select.score=polite is unknown; choose one of"),
    ],
)
def test_wrong_code_is_refused_with_key_value_and_remedy(weightless, folder, word, message):
    assert message in faults(weightless, folder, *word.split(" "))


def test_a_score_of_ones_own_may_decide_a_selection_and_a_claim(weightless, folder):
    metrics = "scoring.metrics=[own_x:polite]"
    assert plan(weightless, folder, metrics, "select.split=validation", "select.score=polite")
    claim = ("stage=claim", "claim.better=lora", "claim.than=ia3", "claim.metric=polite")
    assert plan(weightless, folder, metrics, *claim)
    assert "claim.metric=polite is not measured" in faults(weightless, folder, *claim)


def test_a_model_of_ones_own_is_a_folder_whose_content_counts(weightless, folder):
    write(folder, own_l=f"def bring(model): return {str(weightless)!r}\ndef none(model): return 3\ndef odd(path): ...")
    made = plan(weightless, folder, "model.source=own_l:bring")
    assert made.inputs["model"] == plan(weightless, folder).inputs["model"]
    assert "model_code" in made.inputs
    assert made.base_key != plan(weightless, folder).base_key
    assert "model.source=own_l:odd takes (path)" in faults(weightless, folder, "model.source=own_l:odd")
    assert "model.source=own_l:gone" in faults(weightless, folder, "model.source=own_l:gone")
    with pytest.raises(ModelFault, match=r"model\.source=own_l:none returns int 3; return a folder"):
        plan(weightless, folder, "model.source=own_l:none")


def test_code_that_is_gone_or_has_changed_is_told_when_a_run_is_used_again(weightless, folder):
    made = plan(weightless, folder, "data.template=own_x:TEXT", "scoring.metrics=[own_y:polite]")
    assert extensions.changed_code(made) == extensions.changed_code(made, metrics=True) == []
    write(folder, own_x=CODE + "\n# edited\n", own_y=CODE + "\n# edited\n")
    assert extensions.changed_code(made) == [
        "data.template: own_x:TEXT has changed since; restore it, or run the command again"
    ]
    assert "scoring.metrics: own_y:polite has changed" in extensions.changed_code(made, metrics=True)[0]


def test_the_record_lists_what_was_used(weightless, folder):
    tracker = Tracker(
        name=Tracking.none, project="", entity=None, mode="offline", dir="", tags=[], notes=None, job_type=None,
        system_metrics=False, artifact=False,
    )  # fmt: skip
    [used] = extensions.used_code(plan(weightless, folder, "data.template=own_x:TEXT"), tracker)
    assert (used["kind"], used["setting"], used["path"]) == ("template", "data.template", "own_x:TEXT")
    assert list(used["files"]) == ["own_x"]
