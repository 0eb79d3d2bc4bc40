"""Records: whole at every moment, honest about their status, free of secrets, and as published."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from jsonschema import Draft202012Validator

from harness.errors import ConfigFault, RunFault
from harness.record import provenance, store
from harness.record.files import atomic_write_bytes, atomic_write_text
from harness.record.run_record import Adapter, Memory, Parameters, RunRecord, ScoreTable, Times, Tracked, Training
from tests.support.growth import calls

ROOT = provenance.PACKAGE.parent
PLAN = {"seed": 1, "peft": {"method": "lora"}, "lora": {"r": 8, "learning_rate": 1e-3}}


def started(folder, fingerprint="a1b2c3d4") -> RunRecord:
    return store.start_record(folder, fingerprint, "lora", PLAN, seeds={"seed": 1, "data_split_seed": 0})


def filled(folder, fingerprint="a1b2c3d4") -> RunRecord:
    """A finished record with every field in use."""
    run = started(folder, fingerprint)
    run.device = provenance.device_info("cpu")
    run.inferred = {"dtype": "float32", "target_modules": ["q_proj", "v_proj"]}
    run.audit = {"supervised_tokens": 100, "cut_rows": 0, "supervised_sha256": "00ff"}
    run.rows = {"train": 80, "validation": 10, "test": 10, "bad": 0}
    run.parameters = Parameters(total=10_000, trainable=100, share=0.01, stored=100, trainable_final=None)
    run.adapter = Adapter("adapter", 400, {"adapter_model.safetensors": 400})
    run.times_s = Times(load=1.0, tokenize=0.5, train=20.25, score_before=3.0, score_after=3.0)
    run.memory_bytes = Memory(base=2**20, train_peak=2**30, score_peak=2**29, kind="process_rss")
    run.training = Training(
        optimizer_steps=2,
        tokens=2000,
        tokens_per_s=98.8,
        best_step=None,
        curve=[{"step": 1, "loss": 3.0, "learning_rate": 1e-3, "grad_norm": 1.0}, {"step": 2, "loss": 2.0}],
        validation=[{"step": 2, "loss": 2.5}],
    )
    run.scores = ScoreTable({"rouge_l": 2.0, "loss": 4.0}, {"rouge_l": 62.0, "loss": 2.0}, {"rouge_l": "v1"})
    run.predictions = "predictions.jsonl"
    run.tracker = Tracked("wandb", "abc")
    run.mark_finished()
    return run


def failed(run: RunRecord, error: BaseException) -> RunRecord:
    run.mark_failed(error)
    return run


def test_schema_is_a_valid_draft_2020_12_schema():
    schema = json.loads(store.SCHEMA_FILE.read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


def test_every_field_of_the_schema_is_explained():
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    schema = json.loads(store.SCHEMA_FILE.read_text())
    assert [name for name in schema["properties"] if f"`{name}`" not in page] == []
    # sha256 is of the file, not of a record in hand; not every run is pruned or packed; older records lack the rest
    later = {"sha256", "pruned", "packed", "kept", "note", "tags", "sweep", "extensions", "foreign", "external"}
    assert set(schema["required"]) == set(schema["properties"]) - later


def test_records_of_every_status_conform_to_the_schema(tmp_path):
    assert store.schema_faults(started(tmp_path).as_dict()) == []
    run = filled(tmp_path, "b2")
    assert store.schema_faults(run.as_dict()) == []
    store.write_record(tmp_path, run)
    assert store.schema_faults(store.read_record(tmp_path, "b2")) == []
    assert store.schema_faults(failed(started(tmp_path, "c3"), ValueError("x")).as_dict()) == []
    assert store.schema_faults(failed(started(tmp_path, "d4"), KeyboardInterrupt()).as_dict()) == []


def test_schema_rejects_misspelt_keys_and_a_finished_record_without_its_figures(tmp_path):
    run = filled(tmp_path).as_dict()
    assert store.schema_faults(run | {"tiems_s": {}})
    assert store.schema_faults(run | {"parameters": {}})
    assert store.schema_faults(run | {"status": "failed"})
    empty = started(tmp_path, "b2")
    empty.mark_finished()
    assert store.schema_faults(empty.as_dict())


def test_what_is_written_reads_back(tmp_path):
    run = filled(tmp_path)
    file = store.write_record(tmp_path, run)
    assert file == tmp_path / "a1b2c3d4" / "record.json" == store.record_path(tmp_path, "a1b2c3d4")
    assert store.read_record(tmp_path, "a1b2c3d4") == run.as_dict()
    assert store.read_record(tmp_path, "ffff") is None


@pytest.mark.parametrize("fingerprint", ["", "..", "../x", "a/b", ".hidden", "a\n"])
def test_a_fingerprint_cannot_leave_the_runs_folder(tmp_path, fingerprint):
    with pytest.raises(ConfigFault, match="is not a fingerprint"):
        store.read_record(tmp_path, fingerprint)


def test_a_full_disk_keeps_the_old_file_and_no_leftovers(tmp_path, monkeypatch):
    run = started(tmp_path)
    before = store.record_path(tmp_path, "a1b2c3d4").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFault, match=r"runs_dir=.*disk is full"):
        store.write_record(tmp_path, run)
    assert store.record_path(tmp_path, "a1b2c3d4").read_bytes() == before
    assert [file.name for file in (tmp_path / "a1b2c3d4").iterdir()] == ["record.json"]


WRITER = """
import sys
from harness.record import store
run = store.start_record(sys.argv[1], "a1", "lora", {"seed": 1}, seeds={"seed": 1})
print("started", flush=True)
while True:
    run.training.curve = [{"step": n, "loss": 1.0} for n in range(2000)]
    store.write_record(sys.argv[1], run)
"""


@pytest.mark.posix
def test_a_killed_run_reads_as_interrupted_and_is_never_torn(tmp_path):
    for delay in (0.0, 0.03, 0.07):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        child.stdout.readline()
        time.sleep(delay)
        assert store.read_record(tmp_path, "a1")["status"] == "running"
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = store.read_record(tmp_path, "a1")
        assert found["status"] == "interrupted"
        assert str(child.pid) in found["error"]["message"]
        assert store.schema_faults(found | {"finished": None}) == []
    assert not list(tmp_path.rglob("*.corrupt-*"))
    again = store.start_record(tmp_path, "a1", "lora", PLAN, seeds={})
    assert again.attempt == 4
    assert "interrupted" in again.notes[0]
    assert [file.name for file in (tmp_path / "a1").iterdir()] == ["record.json"]


def test_a_rerun_says_what_it_replaces_on_the_console_too(tmp_path, caplog):
    run = filled(tmp_path)
    store.write_record(tmp_path, run)
    again = started(tmp_path)
    assert (again.attempt, again.created) == (2, run.created)
    assert "replaces attempt 1 (finished" in again.notes[0]
    assert again.notes[0] in caplog.text


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[]", b"null", b"\xff\xfe", b"{}", b'{"schema_version": 1}'])
def test_a_corrupt_record_is_set_aside_and_reported(tmp_path, caplog, content):
    for number in (1, 2):
        file = store.record_path(tmp_path, "a1")
        atomic_write_bytes(file, content)
        assert store.read_record(tmp_path, "a1") is None
        assert not file.exists()
        assert file.with_name(f"record.json.corrupt-{number}").read_bytes() == content
    assert "set aside as record.json.corrupt-2" in caplog.text


def test_record_that_is_not_as_it_was_written_is_set_aside(tmp_path, caplog):
    run = filled(tmp_path)
    file = store.write_record(tmp_path, run)
    written = file.read_bytes()
    assert store.schema_faults(json.loads(written)) == []
    assert store.read_record(tmp_path, run.fingerprint) == json.loads(
        json.dumps(run.as_dict())
    )  # the checksum stays in the file
    changed = written.replace(b'"attempt": 1', b'"attempt": 7')  # still JSON, still a record
    assert changed != written
    for damaged in (changed, written.replace(b'"sha256": "', b'"sha256": "0', 1), written + b"\n"):
        atomic_write_bytes(file, damaged)
        assert store.read_record(tmp_path, run.fingerprint, curve=False) is None
    assert "checksum mismatch" in caplog.text


def test_a_record_of_a_newer_harness_is_refused_and_left_alone(tmp_path):
    file = store.record_path(tmp_path, "a1")
    atomic_write_text(file, json.dumps({"schema_version": 3}))
    with pytest.raises(RunFault, match="schema_version=3"):
        store.read_record(tmp_path, "a1")
    assert file.exists()


def test_numbers_that_json_lacks_become_null_and_are_named(tmp_path):
    run = started(tmp_path)
    run.training.curve = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}]
    store.write_record(tmp_path, run)
    found = store.read_record(tmp_path, "a1b2c3d4")
    assert [point["loss"] for point in found["training"]["curve"]] == [None, None]
    assert found["notes"] == ["not finite, written as null: training.curve[0].loss, training.curve[1].loss"]


def test_numpy_numbers_are_written_and_strange_objects_refused(tmp_path):
    import numpy

    run = started(tmp_path)
    run.rows = {"train": numpy.int64(3)}
    store.write_record(tmp_path, run)
    assert store.read_record(tmp_path, "a1b2c3d4")["rows"] == {"train": 3}
    run.rows = {"train": object()}
    with pytest.raises(TypeError, match="cannot hold"):
        store.write_record(tmp_path, run)
    assert store.read_record(tmp_path, "a1b2c3d4")["rows"] == {"train": 3}


def test_no_secret_reaches_a_record(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("HF_TOKEN", "very-private-words")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    hub = "hf_" + "AbCdEfGhIjKlMnOpQrSt"
    run = started(tmp_path)
    run.plan = {"data": {"path": "https://me:hunter2@example.org/x.jsonl"}, "tokens": False}
    run.notes.append("false alarm")
    message = f"401 for Authorization: Bearer abcdefghijk, very-private-words, {hub} {os.environ['WANDB_API_KEY']}"
    store.write_record(tmp_path, failed(run, ValueError(message)))
    text = store.record_path(tmp_path, "a1b2c3d4").read_text()
    for secret in ("hunter2", "abcdefghijk", "very-private-words", hub, os.environ["WANDB_API_KEY"]):
        assert secret not in text
    assert "<HF_TOKEN>" in text
    assert "example.org/x.jsonl" in text
    assert "false alarm" in text


def test_listing_skips_what_is_no_run_and_survives_broken_ones(tmp_path, caplog):
    started(tmp_path, "b2")
    store.write_record(tmp_path, filled(tmp_path, "c3"))
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "table.csv").write_text("x")
    atomic_write_text(store.record_path(tmp_path, "d4"), "{")
    atomic_write_text(store.record_path(tmp_path, "e5"), '{"schema_version": 9}')
    assert [run["fingerprint"] for run in store.all_records(tmp_path)] == ["b2", "c3"]
    assert "schema_version=9" in caplog.text
    assert store.all_records(tmp_path / "absent") == []


def test_the_work_of_listing_grows_with_the_records_and_skips_their_curves(tmp_path):
    """A curve of 200 points is most of a record; without it a record must cost few calls."""
    run = filled(tmp_path, "f0")
    run.training.curve = [
        {"step": n, "loss": 1.0 / (n + 1), "learning_rate": 1e-3, "grad_norm": 0.123456} for n in range(200)
    ]
    content = json.dumps(run.as_dict(), indent=1)
    for number in range(400):
        for root in [tmp_path / "many", *([tmp_path / "few"] if number < 100 else [])]:
            folder = root / f"f{number}"
            folder.mkdir(parents=True)
            (folder / store.RECORD_NAME).write_text(content.replace('"f0"', f'"f{number}"'))
    assert len(store.all_records(tmp_path / "many", curves=False)) == 400
    many, few = (calls(lambda name=name: store.all_records(tmp_path / name, curves=False)) for name in ("many", "few"))
    assert many < 5 * few
    assert few < 100 * 200


def test_listing_without_curves_differs_in_the_curve_only(tmp_path):
    run = filled(tmp_path)
    run.notes = ['a "curve": [\n  ]', '\n  "curve": [\n  ]']
    store.write_record(tmp_path, run)
    (bare,) = store.all_records(tmp_path, curves=False)
    assert bare["training"].pop("curve") == []
    whole = run.as_dict()
    assert len(whole["training"].pop("curve")) == 2
    assert bare == whole


def test_record_needs_no_torch():
    code = "import sys, harness.record.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
