"""Plans of earlier runs: found by the start of a fingerprint, and only if their files are still the same."""

from dataclasses import replace

import pytest

from harness.config.schema import Template
from harness.errors import ConfigFault, DataFault, ModelFault
from harness.frozen import freeze
from harness.plan.from_record import find_record, plan_of_record, require_same_rows
from harness.record import store
from tests.support.runs import plan_of


@pytest.fixture
def planned(weightless, tmp_path):
    plan, options = plan_of(f"model.path={weightless}", "scoring.forgetting=null")
    return plan, replace(options, runs_dir=tmp_path)


@pytest.fixture
def records(monkeypatch, tmp_path):
    """Statuses by fingerprint; each becomes a record."""
    statuses = {"aaaa00000000": "finished", "aaaa11111111": "failed", "bbbb00000000": "finished"}
    for fingerprint in statuses:
        (tmp_path / fingerprint).mkdir()
        (tmp_path / fingerprint / store.RECORD_NAME).touch()
    read = {fingerprint: {"fingerprint": fingerprint, "status": status} for fingerprint, status in statuses.items()}
    monkeypatch.setattr(store, "read_record", lambda runs_dir, fingerprint: read[fingerprint])


@pytest.mark.usefixtures("records")
def test_run_is_found_by_the_start_of_its_fingerprint(planned):
    assert find_record(replace(planned[1], run="bb"))["fingerprint"] == "bbbb00000000"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("cc", "run=cc matches no run in .*; give the whole fingerprint of one"),
        ("aaaa", "run=aaaa matches 2 runs: aaaa00000000, aaaa11111111 in"),
        ("aaaa1", "run=aaaa11111111 is failed, not finished; run its command again first"),
    ],
)
@pytest.mark.usefixtures("records")
def test_run_that_cannot_be_used_is_refused(planned, run, message):
    with pytest.raises(ConfigFault, match=message):
        find_record(replace(planned[1], run=run))


def test_plan_of_a_record_is_the_plan_that_ran(planned):
    plan = planned[0]
    record = {"fingerprint": plan.fingerprint, "plan": plan.as_dict(), "inferred": {"stop_ids": [0]}}
    assert plan_of_record(record) == plan
    require_same_rows(plan)


def test_changed_base_model_is_refused(planned):
    plan = planned[0].as_dict()
    plan["inputs"]["model"] = "0" * 64
    with pytest.raises(ModelFault, match="its files have changed since run=abc was trained; restore them"):
        plan_of_record({"fingerprint": "abc", "plan": plan, "inferred": {"stop_ids": [0]}})


def test_an_earlier_record_keeps_the_published_prompts_and_its_fingerprint(planned):
    plan = replace(planned[0], data=freeze(replace(planned[0].data, template=Template.lesson)))
    published = replace(plan, data=freeze(replace(plan.data, template=Template.lesson_exact)))
    kept = published.as_dict()
    kept["data"]["template"] = "lesson"  # what the name meant before prompts ended where the tokenizer's tokens do
    found = plan_of_record({"fingerprint": published.fingerprint, "plan": kept, "inferred": {}})
    assert found == published
    assert found.fingerprint != plan.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "0" * 64}, "data.path=.*: its rows have changed since run=.* restore them"),
        ({"forgetting": "0" * 64}, "scoring.forgetting=.*: its rows have changed since"),
    ],
)
def test_changed_rows_are_refused(weightless, change, message):
    plan = plan_of(f"model.path={weightless}")[0]
    with pytest.raises(DataFault, match=message):
        require_same_rows(replace(plan, inputs=dict(plan.inputs) | change))
