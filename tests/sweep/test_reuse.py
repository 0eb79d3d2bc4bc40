"""Which records answer for a plan: by code version, by state, by their files, and by who made them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from harness.config.schema import Retry, Reuse
from harness.errors import RunFault
from harness.models import digests
from harness.record import provenance
from harness.record.files import file_sha256
from harness.record.run_record import Adapter
from harness.record.store import say_once
from harness.sweep import reuse
from tests.support.stored_records import fail, started
from tests.support.sweeps import finish_record, make_cell

OTHER = "0123456789abcdef"


@pytest.fixture(autouse=True)
def console():
    """As of a new process: what is said once is said again."""
    say_once.cache_clear()


@pytest.fixture
def cell(tmp_path, weightless):
    return make_cell(tmp_path, weightless, "lora.r=8", attempts=0)


def with_options(cell, **options):
    return replace(cell, options=replace(cell.options, **options))


def test_finished_record_of_this_code_is_reused_unless_rerun_asks(cell):
    finish_record(cell)
    assert reuse.reusable(cell)["status"] == "finished"
    assert reuse.reusable(with_options(cell, rerun=True)) is None


@pytest.mark.parametrize(("setting", "reused"), [(Reuse.same_code, False), (Reuse.any, True)])
def test_record_of_other_code_is_reused_only_with_reuse_any(cell, setting, reused):
    finish_record(cell, code=OTHER)
    cell = with_options(cell, reuse=setting)
    assert (reuse.reusable(cell) is not None) == reused
    assert (reuse.made_by_another(cell) is not None) == reused


def test_description_of_a_reused_record_names_its_other_code(cell):
    assert "code" not in reuse.describe_reuse(finish_record(cell))
    text = reuse.describe_reuse(finish_record(cell, code=OTHER))
    assert f"by code {OTHER}, now {provenance.code_version()} (sweep.reuse=any); rerun=true runs it again" in text


@pytest.mark.parametrize("setting", list(Reuse))
def test_record_whose_files_are_gone_is_not_reused(cell, setting):
    finish_record(cell, predictions="predictions.jsonl")
    cell = with_options(cell, reuse=setting)
    assert reuse.reusable(cell) is None
    (cell.folder / "predictions.jsonl").touch()
    assert reuse.reusable(cell) is not None


@pytest.fixture
def saved(cell):
    """The cell's finished record with an adapter of one file, and that file."""
    file = cell.folder / "adapter" / "adapter_model.safetensors"
    file.parent.mkdir(parents=True)
    save_file({"weight": torch.ones(2)}, file)
    size = file.stat().st_size
    finish_record(cell, adapter=Adapter("adapter", size, {file.name: size}, {file.name: file_sha256(file)}))
    return file


DAMAGE = {
    "empty": (lambda content: b"", "has 0 bytes instead of"),
    "cut": (lambda content: content[:-3], "bytes instead of"),
    "other bytes": (lambda content: content[:-1] + b"x", "does not match its checksum"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("setting", list(Reuse))
def test_record_whose_adapter_is_damaged_is_not_reused_and_the_console_says_why(cell, saved, caplog, kind, setting):
    damage, reason = DAMAGE[kind]
    cell = with_options(cell, reuse=setting)
    assert reuse.reusable(cell) is not None
    saved.write_bytes(damage(saved.read_bytes()))
    assert reuse.reusable(cell) is None
    assert f"adapter cannot be reused (adapter_model.safetensors {'does not' if 'checksum' in reason else 'has'}" in (
        caplog.text
    )
    assert reason in caplog.text
    saved.unlink()
    assert reuse.reusable(cell) is None


def test_adapter_of_an_earlier_record_without_checksums_is_judged_by_its_header(cell, saved):
    finish_record(cell, adapter=Adapter("adapter", 1, {saved.name: saved.stat().st_size}, {}))
    assert reuse.reusable(cell) is not None
    saved.write_bytes(b"\0" * saved.stat().st_size)
    assert reuse.reusable(cell) is None


def test_failure_is_kept_with_retry_none_and_only_of_this_code(cell):
    record = started(cell)
    fail(cell.options.runs_dir, record, RunFault("no memory"))
    assert reuse.failed_and_not_retried(cell) is None
    cell = with_options(cell, retry=Retry.none, reuse=Reuse.any)
    assert reuse.failed_and_not_retried(cell)["status"] == "failed"
    record.code.version = OTHER
    fail(cell.options.runs_dir, record, RunFault("no memory"))
    assert reuse.failed_and_not_retried(cell) is None


def test_failure_reads_as_the_error_on_record(cell):
    record = fail(cell.options.runs_dir, started(cell, pid=4711), RunFault("no memory"))
    assert str(reuse.failure_of(record)).startswith("failed by process 4711 on ")
    assert str(reuse.failure_of(record)).endswith(": no memory")


def test_a_record_of_other_base_weights_is_not_reused(cell, monkeypatch, tmp_path):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "cache"))
    record = finish_record(cell)
    assert reuse.reusable(cell) is not None
    digests.remember_weights(cell.plan.base_key, "f" * 64)
    used = record["inferred"].get("base_weights")
    monkeypatch.setattr(type(cell), "read_record", lambda self: record | {"inferred": {"base_weights": "e" * 64}})
    assert reuse.reusable(cell) is None
    monkeypatch.setattr(type(cell), "read_record", lambda self: record | {"inferred": {"base_weights": "f" * 64}})
    assert reuse.reusable(cell) is not None
    assert used is None
