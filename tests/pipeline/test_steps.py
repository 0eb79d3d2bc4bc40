"""One run from plan to record: what it leaves behind when it ends, and when it fails."""

import json
from unittest import mock

import pytest
import torch

from harness.models.base import fingerprint_weights
from harness.pipeline import cache, steps
from harness.scoring import generate
from harness.training import train, trainer
from tests.support.runs import command, overrides, records_of, write_rows
from tests.trackers.test_base import closed, offline_files


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def run(random_qwen2, rows, tmp_path):
    """Runs a command over the small rows; returns its outcome and its one record."""

    def go(*words):
        done = command(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)
        found = list(records_of(tmp_path / "runs").values())
        return done, found[-1] if found else None

    return go


def base_weights():
    [held] = cache._bases.values()
    return fingerprint_weights(held.base.model)


def test_a_finished_run_leaves_record_adapter_and_predictions_and_nothing_else(run, tmp_path):
    done, kept = run("scoring.generation.batch_size=4")
    assert done.code == 0, done.err
    assert kept["status"] == "finished"
    folder = tmp_path / "runs" / kept["fingerprint"]
    assert {path.name for path in folder.iterdir()} - {"lock"} == {"record.json", "adapter", "predictions.jsonl"}
    assert kept["adapter"]["bytes"] == sum(path.stat().st_size for path in (folder / "adapter").iterdir())
    assert kept["training"]["optimizer_steps"] == 2
    assert kept["inferred"]["learning_rate"] == 0.005
    assert kept["inferred"]["base_weights"] == base_weights()
    assert kept["audit"]["labels"] == "completion"
    assert kept["audit"]["trained_supervised_tokens"] > 0
    assert set(kept["times_s"]) == {"load", "tokenise", "score_before", "train", "score_after"}


def test_predictions_have_every_scored_row_in_order_with_both_answers(run, rows, tmp_path):
    _, kept = run("trainer.learning_rate=0.1", "trainer.max_steps=6")
    folder = tmp_path / "runs" / kept["fingerprint"]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    source = [json.loads(line) for line in (rows / "test.jsonl").read_text().splitlines()]
    assert [each["reference"] for each in predictions] == [row["output"] for row in source]
    assert all(row["input"] in each["prompt"] for each, row in zip(predictions, source, strict=True))
    assert all(set(each) == {"prompt", "reference", "before", "after"} for each in predictions)
    assert any(each["before"] != each["after"] for each in predictions)


@pytest.mark.parametrize("words", [["peft=full"], ["lora.init_lora_weights=pissa"], ["peft=diff_pruning"]])
def test_the_base_is_bit_for_bit_what_was_loaded(run, words):
    _, kept = run(*words)
    assert kept["status"] == "finished"
    assert base_weights() == kept["inferred"]["base_weights"]
    assert not any("changed weights" in note for note in kept["notes"])


def test_pruned_methods_report_what_training_left(run):
    _, kept = run("peft=diff_pruning", "diff_pruning.target_sparsity=0.01")
    assert 0 < kept["parameters"]["trainable_final"] == kept["training"]["nonzeros"]
    assert kept["parameters"]["trainable_final"] < kept["parameters"]["trainable"] / 50


def test_defaults_that_the_run_settled_are_told(run):
    _, kept = run("peft=c3a")
    assert kept["inferred"]["c3a.block_size"] > 0
    assert len(kept["inferred"]["target_modules"]) == 14


@pytest.mark.parametrize("init", ["eva"])
def test_starts_that_look_at_the_rows_get_them(run, init):
    done, kept = run(f"lora.init_lora_weights={init}", "lora.r=2")
    assert kept["status"] == "finished", done.err


def test_the_lessons_objective_runs_and_says_whose_labels_it_trained_on(run):
    _, kept = run("trainer.objective=lesson")
    audit = kept["audit"]
    assert kept["status"] == "finished"
    assert audit["labels"] == "lesson"
    assert audit["supervised_tokens"] == 24 * 511
    assert audit["supervised_padding_tokens"] > 24 * 400
    assert audit["trained_supervised_tokens"] == 2 * 8 * 511
    assert kept["training"]["tokens"] == audit["trained_prompt_tokens"] > 0


def test_a_failure_after_training_is_recorded_and_leaves_no_scratch(run, tmp_path):
    with mock.patch.object(steps.Experiment, "save", side_effect=OSError(28, "No space left on device")):
        done, kept = run()
    assert done.code == 1
    assert (kept["status"], kept["adapter"]) == ("failed", None)
    assert "disk is full" in kept["error"]["hint"]
    assert not (tmp_path / "runs" / kept["fingerprint"] / "scratch").exists()
    again, kept = run()
    assert (again.code, kept["status"], kept["attempt"]) == (0, "finished", 2)


def test_a_run_that_breaks_the_base_and_then_fails_does_not_hand_it_on(run):
    original = train

    def vandal(model, *args, **settings):
        with torch.no_grad():
            next(iter(cache._bases.values())).base.model.lm_head.weight[0] += 1.0
        original(model, *args, **settings)
        raise RuntimeError("out of luck")

    with mock.patch.object(train, "train", vandal):
        _, kept = run("peft=ia3", "seed=7")
    assert kept["status"] == "failed"
    assert any("loaded anew" in note for note in kept["notes"])
    assert not cache._bases


def test_a_stop_from_outside_is_no_failure(run):
    with mock.patch.object(generate, "generate", side_effect=KeyboardInterrupt):
        cache._baselines.clear()
        done, kept = run("scoring.generation.max_new_tokens=2")
    assert done.code == 130
    assert kept["status"] == "interrupted"


def out_of_memory_above(rows: int):
    """Training fails as on a GPU that holds so many rows a pass."""
    step = trainer.HarnessTrainer.training_step

    def limited(self, model, inputs, *rest):
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return step(self, model, inputs, *rest)

    return mock.patch.object(trainer.HarnessTrainer, "training_step", limited)


def test_out_of_memory_halves_the_batch_where_asked_and_trains_the_same(run):
    with out_of_memory_above(3):
        done, halved = run("trainer.on_oom=halve", "trainer.batch_size=8")
    assert done.code == 0, done.err
    assert halved["inferred"]["batch_size"] == 2
    assert halved["inferred"]["gradient_accumulation_steps"] == 4
    said = "out of memory (CUDA out of memory. Tried to allocate 2 GiB): trained again with"
    first, second = [note.removeprefix(said) for note in halved["notes"] if note.startswith(said)]
    assert (first, second) == (" 4 rows a pass and 2 passes a step", " 2 rows a pass and 4 passes a step")
    _, same = run("trainer.batch_size=2", "trainer.gradient_accumulation_steps=4", "rerun=true")
    assert same["fingerprint"] != halved["fingerprint"]
    assert same["training"]["curve"] == halved["training"]["curve"]
    assert same["scores"]["after"] == halved["scores"]["after"]


@pytest.mark.parametrize("words", [(), ("trainer.on_oom=halve",)])
def test_out_of_memory_is_a_failure_with_a_remedy_where_nothing_is_left_to_halve(run, words):
    with out_of_memory_above(0 if words else 7):
        done, kept = run("trainer.batch_size=8", *words)
    assert (done.code, kept["status"]) == (1, "failed")
    assert "trainer.on_oom=halve" in kept["error"]["hint"]


def test_wandb_gets_one_run_per_plan_with_its_own_name_group_tags_and_state(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "tracker=wandb"]
    words += ["peft=lora,ia3", "trainer.learning_rate=1e-3,1e30", "trainer.max_steps=1", "sweep.name=s1"]
    done = command("-m", *words)
    assert done.code == 1
    kept = records_of(tmp_path / "runs")
    assert {record["status"] for record in kept.values()} == {"failed", "finished"}
    assert len(kept) == 4
    seen = {}
    for file in offline_files(tmp_path / "runs" / "tracker"):
        closing = closed(file)
        [opening] = [record.run for record in closing if record.HasField("run")]
        [end] = [record.exit for record in closing if record.HasField("exit")]
        seen[opening.run_id] = (opening, end.exit_code)
    assert set(seen) == {record["tracker"]["id"] for record in kept.values()}
    for record in kept.values():
        opening, code = seen[record["tracker"]["id"]]
        assert opening.run_group == "s1"
        assert list(opening.tags) == [record["method"], "random"]
        assert f"peft={record['method']}" in opening.display_name
        assert code == (0 if record["status"] == "finished" else 1)


def test_tensorboard_gets_a_folder_per_plan(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "tracker=tensorboard", "trainer.max_steps=1"]
    assert command("-m", *words, "peft=ia3", "seed=0,1", "lora.r=2,4").code == 0
    kept = records_of(tmp_path / "runs")
    folders = {path.parent.name for path in (tmp_path / "runs" / "tracker").glob("*/events*")}
    assert folders == {record["tracker"]["id"] for record in kept.values()}
    assert len(folders) == 2
