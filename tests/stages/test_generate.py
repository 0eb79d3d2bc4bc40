"""stage=generate: one prompt before and after tuning, by the run's own template."""

import json
from dataclasses import replace
from unittest import mock

import pytest

from harness.scoring import generate as scoring_generate
from tests.support.runs import command, overrides, records_of, write_rows


@pytest.fixture(scope="module")
def finished(random_qwen2, tmp_path_factory):
    """A folder with one finished run, its command and its record."""
    folder = tmp_path_factory.mktemp("asked")
    words = overrides(random_qwen2, write_rows(folder / "rows"), folder / "runs")
    assert command(*words, "trainer.learning_rate=0.1", "trainer.max_steps=6").code == 0
    [record] = records_of(folder / "runs").values()
    return folder / "runs", words, record


def ask(runs_dir, *words):
    return command("stage=generate", f"runs_dir={runs_dir}", *words)


def test_a_prefix_of_the_fingerprint_shows_both_answers_by_the_runs_template(finished):
    runs_dir, _, record = finished
    with mock.patch.object(scoring_generate, "generate", side_effect=scoring_generate.generate) as generate:
        done = ask(runs_dir, f"run='{record['fingerprint'][:6]}'", "prompt=Colour?", "input='sky 1'")
    assert done.code == 0, done.err
    lines = dict(line.partition(": ")[::2] for line in done.out.splitlines())
    assert list(lines) == ["prompt", "input", "before", "after"]
    assert lines["before"].strip() != lines["after"].strip()
    prompts = [call.args[2] for call in generate.call_args_list]
    assert prompts[0] == prompts[1]
    tokenizer = generate.call_args_list[0].args[1]
    assert tokenizer.decode(prompts[0][0]) == "Instruction: Colour?\nInput: sky 1\nAnswer:"


def test_what_the_run_answered_in_scoring_it_answers_again(finished):
    runs_dir, _, record = finished
    row = json.loads((runs_dir / record["fingerprint"] / record["predictions"]).read_text().splitlines()[0])
    thing = row["prompt"].split("Input: ")[1].split("\n")[0]
    done = ask(runs_dir, f"run='{record['fingerprint']}'", "prompt=Colour?", f"input='{thing}'")
    assert f"before: {row['before']}\nafter:  {row['after']}" in done.out


def test_control_characters_of_prompt_and_answers_reach_no_terminal(finished):
    runs_dir, _, record = finished
    hostile = "\x1b]0;title\x07\x1b[2J\u202e"

    def answers(*given, **options):
        return [replace(answer, text=f"say{hostile}\nmore") for answer in real(*given, **options)]

    real = scoring_generate.generate
    with mock.patch.object(scoring_generate, "generate", side_effect=answers):
        done = ask(runs_dir, f"run='{record['fingerprint']}'", f"prompt={hostile}", f"input={hostile}")
    assert done.code == 0, done.err
    assert not any(char in done.out for char in "\x1b\x07\u202e")
    shown = "\\x1b]0;title\\x07\\x1b[2J\\u202e"
    assert done.out.splitlines() == [
        f"prompt: {shown}", f"input:  {shown}", f"before: say{shown}", "more", f"after:  say{shown}", "more"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=abc"], "needs run=<fingerprint> and prompt="),
        (["prompt=x"], "needs run=<fingerprint> and prompt="),
        (["run=zzz", "prompt=x"], "run=zzz matches no run"),
        (["run='../..'", "prompt=x"], "matches no run"),
        (["run='*'", "prompt=x"], "matches no run"),
    ],
)
def test_a_wrong_question_is_one_sentence(finished, words, said):
    done = ask(finished[0], *words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_runs_that_are_ambiguous_unfinished_or_without_their_files_say_so(finished, tmp_path):
    record = finished[2]
    name = record["fingerprint"]
    other = name[:-1] + ("0" if name[-1] != "0" else "1")
    for each, change in ((name, {}), (other, {"fingerprint": other, "status": "failed"})):
        (tmp_path / each).mkdir()
        (tmp_path / each / "record.json").write_text(json.dumps(record | change))
    assert "matches 2 runs" in ask(tmp_path, f"run='{name[:5]}'", "prompt=x").err
    assert "is failed, not finished" in ask(tmp_path, f"run='{other}'", "prompt=x").err
    assert "has no adapter" in ask(tmp_path, f"run='{name}'", "prompt=x").err


def test_another_base_than_the_one_trained_on_is_refused(finished, tmp_path):
    record = finished[2]
    changed = json.loads(json.dumps(record))
    changed["plan"]["inputs"]["model"] = "0" * 64
    (tmp_path / record["fingerprint"]).mkdir()
    (tmp_path / record["fingerprint"] / "record.json").write_text(json.dumps(changed))
    assert "its files have changed since" in ask(tmp_path, f"run='{record['fingerprint']}'", "prompt=x").err


def test_a_run_that_kept_no_adapter_says_how_to_get_it_back(random_qwen2, tmp_path):
    words = overrides(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs")
    assert command(*words, "keep=record").code == 0
    [record] = records_of(tmp_path / "runs").values()
    done = ask(tmp_path / "runs", f"run='{record['fingerprint']}'", "prompt=Colour?")
    assert done.code == 2
    assert "kept no adapter (keep=record); run its command again with rerun=true keep=adapter" in done.err
    assert command(*words, "rerun=true", "keep=adapter").code == 0
    assert ask(tmp_path / "runs", f"run='{record['fingerprint']}'", "prompt=Colour?").code == 0
