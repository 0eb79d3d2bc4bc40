"""Content hashes of what a plan reads: an edited file makes another experiment."""

import json
import shutil
from pathlib import Path

import pytest

from harness.config.schema import DType, ModelSource
from harness.errors import ConfigFault
from harness.plan.inputs import teacher_digest, teacher_model, teacher_run
from harness.plan.spec import Plan
from harness.record import store
from tests.support.runs import plan_of, write_rows

RUN = "0123456789ab"


@pytest.fixture
def rows(tmp_path) -> Path:
    return write_rows(tmp_path / "rows")


def planned(weightless: Path, rows: Path, *words: str) -> Plan:
    plan_of.cache_clear()  # it does not see that a file was edited
    return plan_of(
        *(f"model.path={weightless}", f"data.path={rows}", "data=alpaca", "scoring.metrics=[exact_match]"),
        "data.splits={train: train.jsonl, validation: validation.jsonl, test: test.jsonl}",
        *words,
    )[0]


@pytest.fixture
def finished(monkeypatch, tmp_path):
    """Makes a run's folder; its record has the fields given."""

    def make(**fields: object) -> Path:
        adapter = tmp_path / RUN / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(b"weights")
        (tmp_path / RUN / store.RECORD_NAME).touch()
        record = {"fingerprint": RUN, "status": "finished", "adapter": {"path": "adapter", "files": []}} | fields
        monkeypatch.setattr(store, "read_record", lambda runs_dir, fingerprint: record)
        return adapter

    return make


def test_edited_rows_make_another_experiment(weightless, rows):
    before = planned(weightless, rows, "scoring.forgetting=null")
    with (rows / "train.jsonl").open("a") as file:
        file.write(json.dumps({"instruction": "one", "input": "", "output": "more"}) + "\n")
    after = planned(weightless, rows, "scoring.forgetting=null")
    assert before.inputs["model"] == after.inputs["model"]
    assert before.inputs["data"] != after.inputs["data"]
    assert before.fingerprint != after.fingerprint
    assert before.protocol != after.protocol


def test_edited_base_model_makes_another_experiment(weightless, rows, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weightless, other)
    config = other / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    before, after = (planned(folder, rows, "scoring.forgetting=null") for folder in (weightless, other))
    assert before.inputs["model"] != after.inputs["model"]


def test_edited_held_out_text_makes_another_experiment(weightless, rows, tmp_path):
    text = tmp_path / "text.jsonl"
    prints = []
    for words in ("a", "b"):
        text.write_text(json.dumps({"text": words}) + "\n")
        prints.append(planned(weightless, rows, f"scoring.forgetting={text}").fingerprint)
    assert len(set(prints)) == 2


def test_teacher_that_is_a_run_counts_by_its_adapter(finished, tmp_path):
    adapter = finished()
    before = teacher_digest(RUN, tmp_path)
    assert before.startswith(f"run {RUN} ")
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert teacher_digest(RUN, tmp_path) != before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "failed"}, f"trainer.teacher={RUN} is a run that is not finished; run its command"),
        ({"adapter": None}, f"run={RUN} kept no adapter; run its command again with rerun=true keep=adapter"),
        ({"kept": "record"}, f"run={RUN} kept no adapter .keep=record.; run its command again with rerun=true"),
    ],
)
def test_teacher_that_is_not_finished_or_left_no_adapter_is_refused(finished, tmp_path, fields, said):
    finished(**fields)
    with pytest.raises(ConfigFault, match=said):
        teacher_run(RUN, tmp_path)


def test_teacher_that_is_not_a_run_is_a_folder_or_a_name_on_the_hub(tmp_path, weightless):
    assert teacher_run(RUN, tmp_path) is None
    assert teacher_digest("org/name", tmp_path) == "hub org/name"
    assert teacher_model("org/name").source is ModelSource.hub
    assert teacher_model(str(weightless)).source is ModelSource.folder
    assert teacher_digest(str(weightless), tmp_path) not in ("None", f"hub {weightless}")


def test_teacher_has_the_precision_and_devices_of_the_students_base(weightless):
    student = plan_of(f"model.path={weightless}", "model.dtype=bfloat16", "model.device=cpu")[0].model
    teacher = teacher_model("org/name", student)
    assert (teacher.path, teacher.dtype, teacher.device) == ("org/name", DType.bfloat16, "cpu")
    assert teacher_model("org/name").dtype is DType.auto
