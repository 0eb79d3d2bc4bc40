"""stage=chat: lines of a pipe or of a terminal, answered before and after tuning."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from unittest import mock

import pytest

from harness.pipeline import talk as pipeline_talk
from tests.stages.test_adapters import plain_adapter
from tests.support.paths import ROOT
from tests.support.runs import command
from tests.support.terminal import in_terminal


@pytest.fixture
def runs(three_runs):
    return three_runs


def chat(runs_dir, said, *words):
    with mock.patch.object(sys, "stdin", io.StringIO(said)):
        return command("stage=chat", f"runs_dir={runs_dir}", *words)


def blocks(done):
    """What each message got, by label."""
    return [
        {label.strip(): text.strip() for label, _, text in (line.partition(":") for line in block.splitlines())}
        for block in done.out.strip().split("\nyou:")
    ]


def rows_of(runs_dir, record):
    lines = (runs_dir / record["fingerprint"] / record["predictions"]).read_text(encoding="utf-8").splitlines()
    return [row | {"thing": row["prompt"].split("Input: ")[1].split("\n")[0]} for row in map(json.loads, lines)]


def test_lines_of_a_pipe_are_answered_as_the_run_answered_them(runs):
    runs_dir, _, records = runs
    rows = rows_of(runs_dir, records[0])
    done = chat(runs_dir, "".join(f"{row['thing']}\n" for row in rows), f"run='{records[0]['fingerprint'][:8]}'")
    assert done.code == 0, done.err
    expected = "".join(f"you:    {r['thing']}\nbefore: {r['before']}\nafter:  {r['after']}\n" for r in rows)
    assert [line.rstrip() for line in done.out.splitlines()] == [line.rstrip() for line in expected.splitlines()]
    assert "instruction (of all its rows; prompt='...' takes another, prompt='' none): Colour?" in done.err
    assert "template lesson" in done.err
    assert "greedy, up to 8 tokens an answer" in done.err


def test_the_newest_run_answers_if_none_is_named(runs):
    done = chat(runs[0], "sky 1\n")
    assert done.code == 0, done.err
    assert f"run={runs[2][-1]['fingerprint']}: the newest of 3 finished runs" in done.err


def asked(runs_dir, said, *words):
    """The command, and every prompt that it made."""
    seen = []

    def stream(model, tokenizer, ids, generation, **options):
        seen.append((tokenizer.decode(ids), generation))
        return real(model, tokenizer, ids, generation, **options)

    real = pipeline_talk.stream
    with mock.patch.object(pipeline_talk, "stream", stream):
        return chat(runs_dir, said, *words), seen


def test_each_model_hears_its_own_answers_until_reset(runs):
    done, seen = asked(runs[0], "sky\n\nsea\n/reset\nsea\n/quit\nnever\n", "chat.history=true", "prompt=Say")
    assert done.code == 0, done.err
    prompts = [prompt for prompt, _ in seen]
    assert len(prompts) == 6
    first = blocks(done)[0]
    for prompt, label in zip(prompts[2:4], ("before", "after"), strict=True):
        assert "Instruction: Say\nInput: User: sky\nAssistant: " in prompt
        assert prompt.split("Assistant: ", 1)[1].startswith(first[label])
        assert prompt.endswith("User: sea\nAnswer:")
    assert prompts[4] == prompts[5] == "Instruction: Say\nInput: sea\nAnswer:"
    assert "the conversation starts over" in done.err
    assert "never" not in done.out


def test_rows_of_one_turn_are_answered_one_by_one_unless_told_otherwise(runs):
    done, seen = asked(runs[0], "sky\nsea\n")
    assert {prompt.split("Input: ")[1] for prompt, _ in seen} == {"sky\nAnswer:", "sea\nAnswer:"}
    assert "each message is answered by itself (its rows have one turn each)" in done.err


def test_the_command_sets_decoding_and_the_instruction(runs):
    words = ["scoring.generation.do_sample=true", "scoring.generation.temperature=2.0", "prompt=''"]
    done, seen = asked(runs[0], "sky\n", *words)
    assert done.code == 0, done.err
    assert [prompt for prompt, _ in seen] == ["Instruction: sky\nAnswer:"] * 2
    assert {(each.do_sample, each.temperature, each.max_new_tokens) for _, each in seen} == {(True, 2.0, 8)}
    assert "sampled (temperature 2, top-p 1)" in done.err
    again, other = (chat(runs[0], "sky\nsky\n", *words, seed) for seed in ("seed=0", "seed=1"))
    assert again.out != other.out
    assert again.out == chat(runs[0], "sky\nsky\n", *words, "seed=0").out


def test_a_slash_begins_a_command_and_two_a_message(runs):
    done, seen = asked(runs[0], "/what now\n//etc\n")
    assert "/what is not a command; /reset forgets" in done.err
    assert ["Input: /etc\n" in prompt for prompt, _ in seen] == [True, True]


def test_control_characters_reach_no_terminal(runs):
    done = chat(runs[0], "a\x1b[2Jb\u202e\n")
    assert "you:    a\\x1b[2Jb\\u202e" in done.out
    assert "\x1b" not in done.out


def test_a_line_of_a_pipe_that_cannot_be_answered_ends_the_command(runs):
    done = chat(runs[0], "sky\n" + "x" * 600 + "\nsea\n")
    assert done.code == 2
    assert "this model reads at most" in done.err
    assert "sea" not in done.out


def test_input_that_is_not_text_says_so(runs):
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8")):
        done = command("stage=chat", f"runs_dir={runs[0]}")
    assert done.code == 2
    assert "the input is not text in utf-8" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=zzz"], "matches no run"),
        (["input=x"], "input=x has no effect with stage=chat"),
        (["adapter_path=/nowhere/at/all"], "is not a folder"),
    ],
)
def test_a_wrong_command_is_one_sentence(runs, words, said):
    done = chat(runs[0], "sky\n", *words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_an_adapter_from_elsewhere_is_asked_by_the_command(runs, random_qwen2, tmp_path):
    folder = plain_adapter(random_qwen2, tmp_path / "theirs")
    words = [word for word in runs[1] if not word.startswith("runs_dir=")]
    done, seen = asked(runs[0], "sky\n", *words, f"adapter_path={folder}", "data.template=alpaca")
    assert done.code == 0, done.err
    assert "random before and after lora" in done.err
    assert "theirs; template alpaca, greedy, up to 8 tokens" in done.err
    assert "### Instruction:\nsky" in seen[0][0]
    assert seen[0][0] == seen[1][0]


needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")


@pytest.mark.slow
@needs_terminal
def test_in_a_terminal_the_answers_stand_side_by_side_and_ctrl_c_leaves(runs):
    words = [sys.executable, "-m", "harness", "stage=chat", f"runs_dir={runs[0]}", f"run='{runs[2][0]['fingerprint']}'"]
    with in_terminal(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as terminal:
        terminal.until("\n> ")
        terminal.type("sky 1\n")
        terminal.until("?25h> ")  # the cursor is back, and so is the prompt
        text = terminal.screen.decode()
        assert "before: random" in text
        assert "after: lora r=4" in text.split("before: random")[1].split("\n")[0]
        terminal.type("/reset\n")
        terminal.until("the conversation starts over\r\n> ")
        for _ in range(20):  # one that comes just before readline waits is seen at the next only
            terminal.process.send_signal(signal.SIGINT)  # what a terminal sends at Ctrl-C
            with suppress(subprocess.TimeoutExpired):
                terminal.process.wait(15)  # a second one while it ends would end it as a signal does
                break
        assert terminal.process.returncode == 0


@pytest.mark.slow
def test_a_shell_pipe_needs_no_terminal(runs):
    assert shutil.which("sh")
    done = subprocess.run(
        ["sh", "-c", f"echo sky 1 | '{sys.executable}' -m harness stage=chat runs_dir='{runs[0]}'"],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("you:    sky 1\nbefore: ")
