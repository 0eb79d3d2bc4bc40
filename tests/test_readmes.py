"""Every command of both READMEs is executed: here, as written or with small settings, or by the test named here.

Commands that would train for minutes are executed as ``stage=plan``, which composes, checks and counts every run.
"""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from harness.record import store
from tests.support.paths import ROOT
from tests.support.published import RESULT
from tests.support.runs import command, overrides, write_rows

PLAN = ("stage=plan",)
SMALL = (
    *("data.limits.train=16", "data.limits.validation=8", "data.limits.test=8", "trainer.batch_size=4"),
    *("trainer.max_steps=2", "trainer.evaluations=1", "trainer.threads=1", "scoring.forgetting=null"),
    *("scoring.generation.max_new_tokens=4", "claim.rates=[1.0]", "claim.budget.runs=10"),
)

# What each command gets besides; None: as it is.
HERE = {
    "-m peft=lora,ia3 lora.r=4,8,16": PLAN,
    "--help": (),
    "doctor": (),
    "demo": ("--no-open", "scale=smoke", "trainer.max_steps=2"),
    "stage=plan -m peft=glob(*)": (),
    "peft=adalora adalora.target_r=4 trainer.epochs=4": PLAN,
    "-m experiment=ceiling": PLAN,
    "-m experiment=variants scale=smoke": PLAN,
    "stage=generate run=<fingerprint> prompt=... input=...": (),
    "stage=status": ("sweep.watch=false",),
    "stage=report": (),
    "stage=score adapter_path=org/name": ("small",),
    "stage=diff diff.runs=[3f2a,77b0]": (),
    "stage=bundle report.sweep=mine": (),
    "stage=import_results import_results.path=results/": (),
    "stage=archive report.where=status == failed": (),
    "stage=claim claim.text=lora > ia3 on names_target": SMALL,
    "stage=claim claim.text=peft=lora lora.use_dora=true == peft=lora on loss within 0.01": SMALL,
    "stage=report report.where=method in [lora, ia3] and model.name == tiny and seed < 3": (),
    "stage=report report.sweep=mine report.reference=lora": (),
    "stage=report report.runs_dirs=[runs] report.dir=paper/tables": (),
    "-m peft=lora,ia3 trainer.learning_rate=0.001,0.003,0.01 select.split=validation": PLAN,
    "data=alpaca data.path=rows.jsonl data.columns.instruction=question data.columns.input=null "
    "data.columns.output=answer": PLAN,
    "data=messages data.path=chats.jsonl": PLAN,
    "-m peft=full,partial,prompt_tuning,prefix_tuning,p_tuning,p_tuning_v2,adapter,lora,loha,lokr,adalora,ia3,bitfit,"
    "diff_pruning seed=0,1,2 trainer.threads=1 runs_dir=runs/lesson": PLAN,
}

# Executed elsewhere, with the test that does it.
ELSEWHERE = {
    "scripts/demo": "tests/test_readmes.py::test_the_scripts_run_what_the_readme_says",
    "scripts/test": "tests/test_readmes.py::test_the_scripts_run_what_the_readme_says",
    "python scripts/docs/ablation.py variants data.path=<folder of GSM8K>": "tests/test_docs.py::"
    "test_one_command_runs_an_experiment_and_writes_its_page",  # with another experiment: this one takes an hour
    "python scripts/docs/lesson_table.py runs/lesson": "tests/test_scripts.py::test_script_explains_itself",  # 42 runs
    "eval $(peft-harness completion bash)": "tests/stages/test_completion.py::"
    "test_bash_completes_what_is_typed_and_torch_is_not_imported",
    "python -m harness stage=chat run=<fingerprint>": "tests/stages/test_chat.py",
    "python -m harness stage=serve": "tests/stages/test_serve.py",
}


def commands():
    """The words of every command in both READMEs, PowerShell included, without repetitions."""
    found = {}
    for page in ("README.md", "README.zh-CN.md"):
        text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
        form = r"^(?: {4,}|\.venv\\Scripts\\)((?:python|peft-harness|eval|scripts/\w+)\b.*)$"
        for line in re.findall(form, text, re.MULTILINE):
            words = shlex.split(line, comments=True)
            if words[:3] != ["python", "-m", "pip"]:  # sets up the environment that these tests run in
                found[" ".join(words)] = words
    return found


def of_harness(name):
    return name.removeprefix("python -m harness ")


def test_every_command_has_its_execution_and_none_is_left_over():
    known = {f"python -m harness {each}" for each in HERE} | ELSEWHERE.keys()
    assert sorted(commands().keys() - known) == []
    assert sorted(known - commands().keys()) == []
    for test in ELSEWHERE.values():
        file, _, function = test.partition("::")
        assert f"def {function}" in (ROOT / file).read_text(encoding="utf-8") if function else True


def test_the_scripts_run_what_the_readme_says():
    demo, test = ((ROOT / "scripts" / name).read_text(encoding="utf-8") for name in ("demo", "test"))
    assert f"python -m harness {next(iter(HERE))} " in demo
    assert "-m pytest" in test  # this command
    assert all(each.startswith("#!/usr/bin/env bash") and "\nscripts/setup\n" in each for each in (demo, test))


@pytest.fixture(scope="module")
def place(tmp_path_factory, random_qwen2):
    """A folder as the READMEs take for granted: a sweep, a failed run, rows, and results of others."""
    folder = tmp_path_factory.mktemp("place")
    words = overrides(random_qwen2, write_rows(folder / "rows"), folder / "runs")
    words = ["model.name=tiny" if word == "model.name=random" else word for word in words]
    assert command("-m", *words, "peft=lora,ia3", "sweep.name=mine").code == 0
    pair = sorted(each["fingerprint"] for each in store.all_records(folder / "runs"))
    failed = command(*words, "trainer.learning_rate=1e30", "trainer.max_steps=8")
    assert failed.code == 1, failed.err
    (folder / "rows.jsonl").write_text("".join(f'{{"question": "q {n}", "answer": "a"}}\n' for n in range(40)))
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    lines = [json.dumps({"messages": [turns[0] | {"content": f"q {number}"}, turns[1]]}) for number in range(40)]
    (folder / "chats.jsonl").write_text("\n".join(lines))
    (folder / "results").mkdir()
    (folder / "results" / "lora.json").write_text(json.dumps(RESULT))
    return folder, words, pair


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_command_of_the_readmes_is_executed(place, name, monkeypatch):
    folder, small, (first, second) = place
    monkeypatch.chdir(folder)
    words = commands()[f"python -m harness {name}"][3:]
    given = {"<fingerprint>": first, "[3f2a,77b0]": f"[{first},{second}]"}
    given["org/name"] = str(Path("runs", first, "adapter"))
    for placeholder, value in given.items():
        words = [word.replace(placeholder, value) for word in words]
    more = [each for each in small if not each.startswith("runs_dir=")] if HERE[name] == ("small",) else HERE[name]
    done = command(*words, *more)
    assert done.code in ((0, 1) if name == "doctor" else (0,)), done.out + done.err
    assert done.out + done.err
    assert os.getcwd() == str(folder)
