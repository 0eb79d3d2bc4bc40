"""One run from plan to record: what it leaves behind."""

import json

import pytest

from harness.models.base import fingerprint_weights
from harness.pipeline.cache import ProcessCache
from harness.pipeline.run import run as run_plan
from tests.support.runs import overrides, plan_of


def test_a_finished_run_leaves_record_adapter_and_predictions_and_nothing_else(run, tmp_path):
    done, kept = run("scoring.generation.batch_size=4")
    assert done.code == 0, done.err
    assert kept["status"] == "finished"
    folder = tmp_path / "runs" / kept["fingerprint"]
    assert {path.name for path in folder.iterdir()} - {"lock"} == {"record.json", "adapter", "predictions.jsonl"}
    assert kept["adapter"]["bytes"] == sum(path.stat().st_size for path in (folder / "adapter").iterdir())
    assert kept["training"]["optimizer_steps"] == 2
    assert kept["inferred"]["learning_rate"] == kept["plan"]["learning_rate"] > 0
    assert kept["audit"]["labels"] == "completion"
    assert kept["audit"]["trained_supervised_tokens"] > 0
    assert set(kept["times_s"]) == {"load", "tokenize", "score_before", "train", "score_after"}


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("adapter", {"adapter"}),
        ("record", set()),
        ("all", {"adapter", "checkpoints"}),
    ],
)
def test_what_a_finished_run_keeps_is_chosen_and_stated(run, tmp_path, keep, left):
    done, kept = run(f"keep={keep}", "trainer.checkpoint_steps=1")
    assert done.code == 0, done.err
    assert kept["kept"] == keep
    assert kept["adapter"]["bytes"] > 0
    folder = tmp_path / "runs" / kept["fingerprint"]
    assert {path.name for path in folder.iterdir()} & {"adapter", "checkpoints", "scratch"} == left
    again, same = run("trainer.checkpoint_steps=1")  # what is kept is no part of the experiment
    assert again.code == 0
    assert (same["fingerprint"], same["attempt"]) == (kept["fingerprint"], 1)


def test_predictions_have_every_scored_row_in_order_with_both_answers(run, rows, tmp_path):
    _, kept = run("trainer.learning_rate=0.1", "trainer.max_steps=6")
    folder = tmp_path / "runs" / kept["fingerprint"]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    source = [json.loads(line) for line in (rows / "test.jsonl").read_text().splitlines()]
    assert [each["reference"] for each in predictions] == [row["output"] for row in source]
    assert all(row["input"] in each["prompt"] for each, row in zip(predictions, source, strict=True))
    assert all(set(each) == {"prompt", "reference", "before", "after", "scores"} for each in predictions)
    for when in ("before", "after"):  # a score that is a mean over rows is the mean of what its rows have
        for name in predictions[0]["scores"][when]:
            values = [each["scores"][when][name] for each in predictions]
            assert sum(values) / len(values) == pytest.approx(kept["scores"][when][name])
    assert any(each["before"] != each["after"] for each in predictions)


def test_pruned_methods_report_what_training_left(run):
    _, kept = run("peft=diff_pruning", "diff_pruning.target_sparsity=0.01")
    assert 0 < kept["parameters"]["trainable_final"] == kept["training"]["nonzeros"]
    assert kept["parameters"]["trainable_final"] < kept["parameters"]["trainable"] / 50


def test_defaults_that_the_run_resolved_are_recorded(run):
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


@pytest.mark.parametrize("words", [["peft=full"], ["lora.init_lora_weights=pissa"], ["peft=diff_pruning"]])
def test_the_base_is_bit_for_bit_what_was_loaded(random_qwen2, rows, tmp_path, words):
    plan, options = plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)
    cache = ProcessCache()
    kept = run_plan(plan, options, "", cache=cache)
    assert kept["status"] == "finished"
    assert fingerprint_weights(cache.shared.base.model) == kept["inferred"]["base_weights"]
    assert not any("changed weights" in note for note in kept["notes"])


def test_references_beyond_the_limit_are_told_before_training_and_cut_answers_counted(run, tmp_path):
    done, kept = run("scoring.generation.max_new_tokens=2")
    [told] = [note for note in kept["notes"] if "references are longer" in note]
    assert "6 of 6 references are longer than scoring.generation.max_new_tokens=2 (the longest has 7 tokens)" in told
    assert told in " ".join((done.out + done.err).split())
    assert kept["scores"]["cut"] == {"before": 6, "after": 6, "of": 6, "limit": 2}
    assert kept["inferred"]["stop_ids"] == [2]
    assert "answers cut by scoring.generation.max_new_tokens: row 1: 6 of 6" in " ".join(done.out.split())


def test_the_lessons_objective_says_that_its_prompt_is_the_published_one(run):
    _, kept = run("trainer.objective=lesson")
    assert kept["plan"]["data"]["template"] == "lesson_exact"
    assert any("as the lesson published them" in note for note in kept["notes"])
