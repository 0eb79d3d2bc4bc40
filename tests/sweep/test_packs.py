"""Runs of a sweep in one pass: results as alone, failures and stops of one run, and what cannot be packed."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from harness.adapters.save_load import load_adapter
from harness.data import collate
from harness.models import base as model_base
from harness.pipeline.cache import ProcessCache
from harness.pipeline.run import run
from harness.record import store
from harness.runtime import signals
from harness.sweep.launchers.packed import Packed
from harness.sweep.outcome import Status
from harness.sweep.packs import Pack, run_packed
from harness.sweep.worklist import Worklist
from harness.training.packed.host import Host
from harness.training.packed.layers import NotPackable
from tests.support.packs import SETTINGS, cell_of, run_pack
from tests.support.runs import loaded, logits_of, write_rows

STEPS = ("trainer.max_steps=4", "trainer.batch_size=3", "trainer.evaluations=2")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), train_rows=10, others=4)


@pytest.fixture
def cell(random_qwen2, rows, tmp_path):
    return lambda *words: cell_of(random_qwen2, rows, tmp_path / "runs", *STEPS, *words)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Records and weights of runs alone, each made once for all tests."""
    made, cache, runs_dir = {}, ProcessCache(), tmp_path_factory.mktemp("alone")

    def of(cell):
        fingerprint = cell.plan.fingerprint
        if fingerprint not in made:
            record = run(cell.plan, replace(cell.options, runs_dir=runs_dir), cell.name, cache=cache)
            made[fingerprint] = record, weights(runs_dir, fingerprint)
        return made[fingerprint]

    return of


def weights(runs_dir, fingerprint):
    return load_file(runs_dir / fingerprint / "adapter" / "adapter_model.safetensors")


def without_padding(audit):
    """Shared passes have padding, which a run alone has not on a CPU."""
    return {key: value for key, value in audit.items() if key != "trained_padding_tokens"}


def assert_as_alone(outcome, cell, kept):
    """Whether record and adapter are those of the run alone, up to the rounding of float32."""
    record, (expected, own) = outcome.record, kept(cell)
    for key in ("plan", "fingerprint", "rows", "parameters", "inferred", "seeds", "method"):
        assert record[key] == expected[key], key
    assert without_padding(record["audit"]) == without_padding(expected["audit"])
    for key in ("optimizer_steps", "tokens", "best_step"):
        assert record["training"][key] == expected["training"][key], key
    for curve in ("curve", "validation"):
        got, wanted = record["training"][curve], expected["training"][curve]
        assert [point["step"] for point in got] == [point["step"] for point in wanted]
        for point, other in zip(got, wanted, strict=True):
            assert point == pytest.approx(other, rel=1e-4), curve
    assert record["scores"]["after"] == pytest.approx(expected["scores"]["after"], rel=1e-3)
    assert record["adapter"]["files"] == expected["adapter"]["files"]
    found = weights(cell.options.runs_dir, cell.plan.fingerprint)
    assert found.keys() == own.keys()
    for name, weight in found.items():
        assert torch.allclose(weight, own[name], rtol=1e-3, atol=1e-4), name
    assert store.schema_faults(record) == []


@pytest.mark.slow
def test_runs_of_all_kinds_in_one_pass_end_as_each_does_alone(cell, kept):
    kinds = {name: words for name, words in SETTINGS.items() if name != "head"}  # ties its weights with a warning
    cells = {name: cell(*words, "trainer.gradient_accumulation_steps=2") for name, words in kinds.items()}
    outcomes = {outcome.fingerprint: outcome for outcome in run_pack(list(cells.values()), max_runs=len(cells))}
    for each in cells.values():
        outcome = outcomes[each.plan.fingerprint]
        assert outcome.status is Status.finished, outcome.message
        assert outcome.record["packed"]["runs"] == len(cells)
        assert outcome.record["packed"]["passes_alone"] == 0
        assert_as_alone(outcome, each, kept)


def test_two_runs_share_their_passes_and_each_record_says_so(cell, kept):
    cells = [cell("lora.r=2", "lora.lora_dropout=0.2"), cell("lora.r=4", "seed=1")]
    outcomes = run_pack(cells, max_runs=2)
    for outcome, each, other in zip(outcomes, cells, reversed(cells), strict=True):
        packed = outcome.record["packed"]
        assert (packed["runs"], packed["others"], packed["passes"]) == (2, [other.plan.fingerprint], 4)
        assert outcome.record["times_s"]["train"] > 0
        assert any("trained in one pass" in note for note in outcome.record["notes"])
        assert_as_alone(outcome, each, kept)


def test_a_saved_adapter_loads_on_its_base(cell, random_qwen2):
    cells = [cell("lora.r=2"), cell("lora.r=4")]
    for outcome, each in zip(run_pack(cells, max_runs=2), cells, strict=True):
        assert outcome.status is Status.finished
        base = loaded(random_qwen2)
        fork = model_base.fork(base, private_weights=False)
        model = load_adapter(fork, each.folder / "adapter", each.plan)
        prepared_rows = ProcessCache().rows(each.plan, base).splits["test"]
        assert not torch.allclose(logits_of(model, prepared_rows), logits_of(base.model, prepared_rows))


def test_a_loss_that_is_not_finite_fails_its_own_run_alone(cell, kept):
    cells = [cell("lora.r=2", "lora.learning_rate=1e38"), cell("lora.r=4"), cell("lora.r=3")]
    outcomes = {outcome.fingerprint: outcome for outcome in run_pack(cells, max_runs=3)}
    first, *others = (outcomes[each.plan.fingerprint] for each in cells)
    assert first.status is Status.failed
    assert "not finite" in first.message or "the loss became nan" in first.message
    assert cells[0].read_record()["status"] == "failed"
    for outcome, each in zip(others, cells[1:], strict=True):
        assert_as_alone(outcome, each, kept)


def test_a_run_that_ends_makes_room_for_the_next(cell):
    cells = [cell("lora.r=2", "trainer.max_steps=1"), cell("lora.r=3"), cell("lora.r=4")]
    outcomes = run_pack(cells, max_runs=2)
    assert [outcome.status for outcome in outcomes] == [Status.finished] * 3
    middle = next(each.record for each in outcomes if each.fingerprint == cells[1].plan.fingerprint)
    assert middle["packed"]["runs"] == 2
    assert len(middle["packed"]["others"]) == 2


def test_what_pays_decides_and_the_console_says_why(cell, monkeypatch, propagated):
    from harness.estimate import packing

    monkeypatch.setitem(packing.TOKENS_THAT_PAY, "cpu", 1)
    outcomes = run_pack([cell("lora.r=2"), cell("lora.r=3")], max_runs=None)
    assert [outcome.status for outcome in outcomes] == [Status.finished] * 2
    assert all("packed" not in outcome.record for outcome in outcomes)
    assert "2 runs, one after another: a batch has" in propagated.text


def test_memory_decides_how_many_share_a_pass(cell, monkeypatch, propagated):
    from harness.sweep import packs

    monkeypatch.setattr(packs.memory, "free_bytes", lambda _: 1)
    run_pack([cell("lora.r=2"), cell("lora.r=3")], max_runs=2)
    assert "one after another: each takes about" in propagated.text


def test_what_cannot_be_packed_runs_all_the_same(cell, propagated):
    cells = [cell("lora.r=2"), cell("peft=bitfit"), cell("lora.r=4"), cell("lora.r=2", "lora.use_dora=true")]
    outcomes = {outcome.fingerprint: outcome for outcome in run_pack(cells, max_runs=4)}
    assert {outcome.status for outcome in outcomes.values()} == {Status.finished}
    sizes = [outcomes[each.plan.fingerprint].record.get("packed", {}).get("runs") for each in cells]
    assert sizes == [2, None, 2, None]
    assert "1 run; not packed: peft=bitfit" in propagated.text
    assert "1 run; not packed: lora.use_dora=true" in propagated.text


def test_a_run_whose_model_turns_out_to_be_unfit_trains_alone_and_says_so(cell, monkeypatch, kept):
    def refuse(self, member, model):
        raise NotPackable("no")

    monkeypatch.setattr(Host, "admit", refuse)
    cells = [cell("lora.r=2"), cell("lora.r=4")]
    for outcome, each in zip(run_pack(cells, max_runs=2), cells, strict=True):
        assert any("not in one pass with other runs: no" in note for note in outcome.record["notes"])
        assert "packed" not in outcome.record
        assert_as_alone(outcome, each, kept)


def test_batches_of_another_kind_are_left_to_each_run(cell, monkeypatch, propagated):
    whole = collate.with_needed_logits

    def placed(batch):
        return whole(batch) | {"position_ids": torch.arange(batch["input_ids"].shape[1])[None]}

    monkeypatch.setattr(collate, "with_needed_logits", placed)
    outcomes = run_pack([cell("lora.r=2"), cell("lora.r=4")], max_runs=2)
    assert [outcome.status for outcome in outcomes] == [Status.finished] * 2
    assert "one after another: its batches have position_ids besides tokens" in propagated.text


def test_bfloat16_agrees_within_its_rounding(cell, kept):
    words = ("model.dtype=bfloat16", "lora.lora_alpha=7", "trainer.max_steps=2")
    cells = [cell("lora.r=2", *words), cell("lora.r=3", *words), cell("peft=ia3", *words)]
    for outcome in run_pack(cells, max_runs=3):
        assert outcome.record["packed"]["runs"] == 3
        expected, _ = kept(next(each for each in cells if each.plan.fingerprint == outcome.fingerprint))
        for point, other in zip(outcome.record["training"]["curve"], expected["training"]["curve"], strict=True):
            assert point["loss"] == pytest.approx(other["loss"], rel=2e-2)


def failing(monkeypatch, error, most):
    """Let passes over more than ``most`` runs fail; returns the sizes that were tried."""
    sizes, whole = [], Host.run

    def tried(self, batches, states):
        sizes.append(len(batches))
        if len(batches) > most:
            raise error
        return whole(self, batches, states)

    monkeypatch.setattr(Host, "run", tried)
    return sizes


def test_out_of_memory_halves_the_passes_and_changes_no_result(cell, monkeypatch, propagated, kept):
    sizes = failing(monkeypatch, RuntimeError("CUDA out of memory"), most=2)
    cells = [cell(f"lora.r={rank}") for rank in (1, 2, 3, 4)]
    outcomes = run_pack(cells, max_runs=4)
    assert sizes == [4, *[2] * 8]
    assert "passes take at most 2 runs from now on" in propagated.text
    for outcome, each in zip(outcomes, cells, strict=True):
        assert_as_alone(outcome, each, kept)


def test_any_other_failure_of_a_pass_leaves_each_run_to_itself(cell, monkeypatch, kept):
    sizes = failing(monkeypatch, RuntimeError("shapes differ"), most=1)
    cells = [cell("lora.r=2", "lora.lora_dropout=0.2"), cell("lora.r=4")]
    outcomes = run_pack(cells, max_runs=2)
    assert sizes == [2]
    for outcome, each in zip(outcomes, cells, strict=True):
        assert any("shapes differ" in note for note in outcome.record["notes"])
        assert_as_alone(outcome, each, kept)


def test_runs_of_different_threads_share_no_pass(cell):
    cells = [cell("lora.r=2", "trainer.threads=1"), cell("lora.r=4", "trainer.threads=1")]
    other = replace(cells[1], options=replace(cells[1].options, threads=2))
    pack = Pack(Packed(2), [cells[0], other], Worklist(cells[0].options.runs_dir, None))
    outcomes = {outcome.fingerprint: outcome.record for outcome in pack.outcomes()}
    first, second = (outcomes[each.plan.fingerprint] for each in (cells[0], other))
    assert "packed" not in first | second
    assert any("threads with which it began" in note for note in second["notes"])
    assert (first["device"]["threads"], second["device"]["threads"]) == (1, 2)


def test_runs_that_pause_for_a_verdict_go_on_together(cell, kept):
    cells = [cell(f"lora.r={rank}", "trainer.evaluations=4") for rank in (2, 3)]
    paused = [replace(each, options=replace(each.options, pause_after=2)) for each in cells]
    assert [outcome.status for outcome in run_pack(paused, max_runs=2)] == [Status.paused] * 2
    again = [each.with_attempts() for each in cells]
    for outcome, each in zip(run_pack(again, max_runs=2), again, strict=True):
        assert outcome.record["packed"]["passes"] == 2
        assert_as_alone(outcome, each, kept)


def test_too_many_failures_start_no_further_run(cell):
    cells = [cell("lora.r=2", "lora.learning_rate=1e38"), cell("lora.r=3", "trainer.max_steps=6"), cell("lora.r=4")]
    outcomes = run_pack(cells, max_runs=2, max_failures=0)
    assert [outcome.status for outcome in outcomes] == [Status.failed, Status.finished]
    assert cells[2].read_record() is None


def stop_at(monkeypatch, number, times=1):
    """Send this process SIGTERM during the pass with this number."""
    seen, whole = [], Host.run

    def counted(self, batches, states):
        seen.append(len(batches))
        if len(seen) == number:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, batches, states)

    monkeypatch.setattr(Host, "run", counted)


def test_a_stop_lets_every_run_write_its_checkpoint_and_a_rerun_ends_as_if_it_never_came(cell, monkeypatch, kept):
    words = ("trainer.max_steps=6", "lora.lora_dropout=0.2")
    cells = [cell("lora.r=2", *words), cell("lora.r=4", *words), cell("lora.r=3", *words, "seed=1")]
    stop_at(monkeypatch, 3)
    with signals.listening(), pytest.raises(signals.Interrupted):
        run_pack(cells, max_runs=2)
    for each in cells[:2]:
        assert each.read_record()["status"] == "interrupted"
        assert [path.name for path in each.folder.glob("checkpoints/step-*")] == ["step-00000003"]
    assert cells[2].read_record() is None
    monkeypatch.undo()
    again = [each.with_attempts() for each in cells]
    with signals.listening():  # as a new process does
        outcomes = {outcome.fingerprint: outcome for outcome in run_pack(again, max_runs=3)}
    for each in again:
        outcome = outcomes[each.plan.fingerprint]
        assert outcome.record["packed"]["runs"] == 3
        assert_as_alone(outcome, each, kept)
    notes = json.dumps(outcomes[cells[0].plan.fingerprint].record["notes"])
    assert "resuming from the checkpoint at optimizer step 3 of 6" in notes


def test_a_second_signal_does_not_wait(cell, monkeypatch):
    monkeypatch.setattr(signals, "ECHO_S", 0.0)
    cells = [cell("lora.r=2"), cell("lora.r=4")]
    stop_at(monkeypatch, 2, times=2)
    with signals.listening(), pytest.raises(signals.Interrupted):
        run_pack(cells, max_runs=2)
    for each in cells:
        assert each.read_record()["status"] == "interrupted"
        assert not list(each.folder.glob("checkpoints/step-*"))
    with signals.listening():  # forgets the stop
        pass


def test_a_command_that_breaks_off_leaves_no_run_in_the_middle(cell):
    cells = [cell("lora.r=2", "trainer.max_steps=1"), cell("lora.r=4")]
    outcomes = run_packed(Packed(2), cells, cells[0].folder, Worklist(cells[0].options.runs_dir, None))
    assert next(outcomes).fingerprint == cells[0].plan.fingerprint
    outcomes.close()
    assert cells[1].read_record()["status"] == "interrupted"
    again = run_pack([cells[1].with_attempts()], max_runs=2)
    assert again[0].status is Status.finished


@pytest.fixture
def propagated(caplog, monkeypatch):
    """What the harness says on the console."""
    import logging

    monkeypatch.setattr(logging.getLogger("harness"), "propagate", True)
    caplog.set_level("INFO", logger="harness")
    return caplog
