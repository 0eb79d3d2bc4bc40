"""Tasks of lm-evaluation-harness: figures are those of a direct call, and what cannot work is refused at planning."""

import importlib.util
import json
import random
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from harness.config.schema import LmEval
from harness.errors import ConfigFault, DataFault
from harness.models.sources import locate_weights
from harness.plan.read import read_config
from harness.report.measured import standard_errors
from harness.scoring import lm_harness
from harness.scoring.catalog import SCORES
from tests.support.configs import compose
from tests.support.runs import command, overrides, plan_of, records_of, write_rows

needs_package = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason=f"needs {lm_harness.PACKAGE}")
SETTINGS = LmEval(
    tasks=["colors"], include_path=None, num_fewshot=None, limit=None, batch_size=4, chat_template=False,
    bootstrap_iters=10,
)  # fmt: skip
NAMES = ("lm_eval/colors/acc", "lm_eval/colors/acc_norm")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with one task of your own, of eight questions."""
    folder = tmp_path_factory.mktemp("tasks")
    choices = ["red", "dark blue", "green", "a very light yellow"]
    rows = [{"question": f"Which colour has thing {at}?", "choices": choices, "label": at % 4} for at in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "colors.yaml").write_text(
        f"""task: colors
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / "rows.jsonl"}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
""",
        encoding="utf-8",
    )
    return folder


@needs_package
@pytest.mark.slow
def test_figures_of_base_and_adapter_are_those_of_a_direct_call(tasks, tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    runs, rows = tmp_path / "runs", write_rows(tmp_path / "rows", train_rows=8, others=4)
    words = [word for word in overrides(tmp_path, rows, runs) if not word.startswith(("model.", "scoring.metrics"))]
    own = ["scoring.lm_eval.tasks=[colors]", f"scoring.lm_eval.include_path={tasks}", "scoring.lm_eval.batch_size=4"]
    done = command(*words, "model=tiny", "scoring=lm_eval", *own, "trainer.learning_rate=1e-2")
    assert done.code == 0, done.err
    [record] = records_of(runs).values()
    base = str(locate_weights(plan_of("model=tiny")[0].model).folder)
    for when, more in (("before", {}), ("after", {"peft": str(runs / record["fingerprint"] / "adapter")})):
        found = simple_evaluate(
            model="hf",
            model_args={"pretrained": base, "dtype": "float32", **more},
            tasks=["colors"],
            device="cpu",
            batch_size=4,
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        )["results"]["colors"]
        assert {name: record["scores"][when][name] for name in NAMES} == {
            name: found[f"{name.rpartition('/')[2]},none"] for name in NAMES
        }
        assert record["scores"]["errors"][when] == pytest.approx(
            {name: found[f"{name.rpartition('/')[2]}_stderr,none"] for name in NAMES}
        )
        assert record["scores"]["details"][when]["lm_eval"]["n-samples"]["colors"]["effective"] == 8
    assert record["scores"]["definitions"][NAMES[0]]["direction"] == "maximize"
    assert "shots:0" in record["scores"]["signatures"][NAMES[0]]
    assert f"{NAMES[0]} with its standard error: row 1 " in done.out


@needs_package
def test_random_states_of_the_process_stay_as_they_were(tasks, random_qwen2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(random_qwen2) for kind in (AutoModelForCausalLM, AutoTokenizer))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    settings = replace(SETTINGS, include_path=str(tasks), limit=2)
    found = lm_harness.run_tasks(model, tokenizer, settings, one_by_one=True)
    assert set(found.values) == set(NAMES)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    lm_harness.require_tasks(settings)
    (tasks / "broken.yaml").write_text((tasks / "colors.yaml").read_text().replace("rows.jsonl", "none.jsonl")
                                       .replace("task: colors", "task: broken"), encoding="utf-8")  # fmt: skip
    lm_harness.forget()
    with pytest.raises(DataFault, match="cannot be loaded"):
        lm_harness.require_tasks(replace(settings, tasks=["broken"]))


@needs_package
def test_the_files_of_tasks_enter_the_fingerprint(tasks, tmp_path):
    first = lm_harness.tasks_digest(replace(SETTINGS, include_path=str(tasks)))
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in tasks.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert lm_harness.tasks_digest(replace(SETTINGS, include_path=str(copy))) == first
    (copy / "rows.jsonl").write_text("{}")
    assert lm_harness.tasks_digest(replace(SETTINGS, include_path=str(copy))) != first


@needs_package
def test_unknown_tasks_and_folders_are_refused(tasks):
    with mock.patch.object(lm_harness, "_known", return_value=frozenset({"colors", "arc_easy"})):
        [fault] = lm_harness.task_faults(replace(SETTINGS, tasks=["colours"]))
        assert "scoring.lm_eval.tasks holds colours" in fault
        assert "perhaps colors" in fault
    [fault] = lm_harness.task_faults(replace(SETTINGS, include_path=str(tasks / "none")))
    assert "is not a folder" in fault
    assert list(lm_harness.task_faults(replace(SETTINGS, include_path=str(tasks)))) == []


def test_a_missing_package_is_refused_with_the_command_that_installs_it():
    with mock.patch.object(lm_harness, "installed", return_value=False):
        [fault] = lm_harness.task_faults(SETTINGS)
    assert "pip install 'peft-harness[lm-eval]'" in fault
    assert list(lm_harness.task_faults(replace(SETTINGS, tasks=[]))) == []


def test_the_group_of_settings_needs_tasks():
    composed = compose("scoring=lm_eval")
    with pytest.raises(ConfigFault, match=r"scoring\.lm_eval\.tasks holds no name"):
        read_config(composed)


def test_results_are_named_by_task_metric_and_filter():
    found = {
        "results": {
            "a": {"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1, "ppl,none": 3.0, "ppl_stderr,none": "N/A"},
            "b": {"exact_match,strict": np.float64(0.25), "exact_match_stderr,strict": 0.2},
            "part": {"acc,none": 0.1, "acc_stderr,none": 0.1},
        },
        "groups": {"g": {"acc,none": 0.3, "acc_stderr,none": 0.05}},
        "higher_is_better": {"a": {"acc": True, "ppl": False}},
        "versions": {"a": 1.0},
        "n-shot": {"a": 5},
    }
    with mock.patch.object(lm_harness, "version", return_value="0"):
        results = lm_harness.read_results(found, replace(SETTINGS, tasks=["a", "b", "g"]))
        tagged = lm_harness.read_results(found, replace(SETTINGS, tasks=["tag"]))
    assert results.values == {
        "lm_eval/a/acc": 0.5, "lm_eval/a/ppl": 3.0, "lm_eval/b/exact_match/strict": 0.25, "lm_eval/g/acc": 0.3,
    }  # fmt: skip
    assert results.errors == {"lm_eval/a/acc": 0.1, "lm_eval/b/exact_match/strict": 0.2, "lm_eval/g/acc": 0.05}
    assert results.lower_is_better == {"lm_eval/a/ppl"}
    assert results.signatures["lm_eval/a/acc"] == "lm-eval:0|task:1.0|shots:5|filter:none"
    assert "lm_eval/part/acc" in tagged.values
    json.dumps(results.details)
    lm_harness.task_scores(results)
    assert SCORES["lm_eval/a/ppl"].lower_is_better


def test_reports_show_standard_errors_with_the_baselines():
    record = {
        "scores": {
            "before": {"x": 0.25}, "after": {"x": 0.5},
            "errors": {"before": {"x": 0.1}, "after": {"x": 0.125}},
        }
    }  # fmt: skip
    [note] = standard_errors([("1", record), ("2", record)])
    assert note == "x with its standard error: rows 1,2 0.5 \u00b1 0.1 (baseline 0.2 \u00b1 0.1)"
    assert list(standard_errors([("1", {"scores": {"before": {}, "after": {}}})])) == []
