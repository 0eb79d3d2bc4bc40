"""The command line on wrong input: one readable message, exit code 2, and nothing left behind."""

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from harness import cli
from harness.__main__ import task
from harness.config.messages import TRACEBACK
from harness.errors import ConfigFault, ModelFault, RunFault
from harness.pipeline.cache import ProcessCache
from harness.runtime import signals
from harness.shipped import VERSION
from tests.support.configs import CONF

ROW = {"instruction": "q", "input": "", "output": "a", "target": "a"}


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs the command in this process, in an empty folder; returns exit code, stderr and stdout."""
    monkeypatch.chdir(tmp_path)
    for name in ("HYDRA_FULL_ERROR", TRACEBACK):
        monkeypatch.setenv(name, "")  # the command sets the first for good; this takes it back

    def run(*arguments: str, does=None) -> tuple[int, str, str]:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        code: object = 0
        try:
            cli.start(does or partial(task, cache=ProcessCache()))
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code if isinstance(code, int) else 1, printed.err, printed.out

    return run


def refused(command, *arguments: str) -> str:
    """The message of a wrong command, after what holds for all of them was checked."""
    code, said, shown = command(*arguments)
    assert code == 2, said
    assert "Traceback" not in said + shown
    assert "Error executing job" not in said
    assert "full_key" not in said
    assert said.count("error: ") == 1
    assert said.startswith("error: "), "the message is all there is"
    assert not list(Path.cwd().rglob("record.json"))
    assert not list(Path.cwd().rglob(".*.partial"))
    return said.removeprefix("error: ").rstrip("\n")


WRONG_COMMANDS = [
    (["lora.rr=4"], "lora.rr=4: there is no setting lora.rr; did you mean lora.r?"),
    (["pef=lora"], "pef=lora: there is no setting pef; did you mean peft?"),
    (["peft/knbs=lora"], "there is no setting peft/knbs; did you mean peft?"),
    (["peft=loar"], "peft=loar does not exist; did you mean peft=lora? options: adalora,"),
    (["peft=null"], "peft=null does not name an option; options: adalora,"),
    (["peft.method=loar"], "peft.method=loar is unknown; choose one of"),
    (["peft=[lora,ia3]"], "peft=[lora,ia3] would merge its options into one run; use -m peft=lora,ia3"),
    (["+peft=ia3"], "peft is given twice; choose one option"),
    (["model@base=tiny"], "remove @base"),
    (["experiment=none_of_these"], "experiment=none_of_these does not exist"),
    (["=3"], "=3 has no key; write key=value"),
    (["lora.r=0"], "lora.r=0 is too small; use at least 1"),
    (["data=alpaca", "data.path=none.jsonl"], "data.path='none.jsonl': no such file or folder"),
    pytest.param(
        ["runs_dir=/dev/null/x"],
        "runs_dir=/dev/null/x cannot be created: /dev/null is not a folder",
        marks=pytest.mark.posix,
    ),
    (["-m", "lora.rr=4,8"], "lora.rr=4: there is no setting lora.rr; did you mean lora.r?"),
    (["-m", "lora.r=4,abc"], "lora.r=abc: lora.r needs a whole number"),
    (["-m", "lora.r=0,-1", "runs_dir=r"], "lora.r=0 is too small; use at least 1 [in lora.r=0"),
    (["-m", "peft=[lora,ia3]"], "peft=[lora,ia3] would merge its options into one run"),
    (["-m", "seed=range(0,3),5"], "seed=range(0,3),5 mixes a function with other values; write seed=0,1,2,5"),
    (["-m", "lora.r=4,interval(1,8)"], "mixes a function with other values; give the function alone"),
    (["+lora.rank_pattern.'q_proj'=3"], "leave out the quotes around the name: +lora.rank_pattern.q_proj=3"),
    (["+lora.rank_pattern={^a: 3}"], "in braces, write name:value with a backslash before"),
    (["-m", "stage=report"], "stage=report does not take a sweep; leave out -m"),
    (["stage=report", "runs_dir=empty"], "empty holds no record; run something first"),
    (["stage=generate"], "stage=generate needs run=<fingerprint> and prompt="),
    (["stage=generate", "run=abc", "prompt=p"], "run=abc matches no run"),
    (["lora.r=1" + "0" * 5000], "Exceeds the limit"),
    (["--resolve"], "--resolve flag can only be used"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), WRONG_COMMANDS, ids=lambda value: value[0][:30] if isinstance(value, list) else ""
)
def test_wrong_command_is_answered_in_one_message(command, weightless, arguments, said):
    # The default model is there or not: these faults come before anybody asks.
    place = [f"model.path={weightless}"] if "stage" in arguments[0] or "runs_dir" in arguments[0] else []
    assert said in refused(command, *arguments, *place)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trainer: {epohcs: 3}", "mine.yaml: there is no setting trainer.epohcs; did you mean trainer.epochs?"),
        ("trainer: {epochs: many}", "mine.yaml: trainer.epochs needs a number"),
    ],
)
def test_fault_in_ones_own_file_names_the_file(command, tmp_path, content, said):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    assert said in refused(command, f"--config-dir={tmp_path}", "experiment=mine")


def test_unknown_flag_is_refused(command):
    code, said, _ = command("--foo")
    assert code == 2
    assert "unrecognized arguments: --foo" in said


def test_hub_name_without_a_network(command, monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    said = refused(command, "model=hub", "model.path=nobody/nothing", "stage=plan")
    assert said.startswith("model.path=nobody/nothing")
    assert "set model.source=folder" in said


def test_target_module_that_matches_nothing(command, random_qwen2):
    said = refused(command, f"model.path={random_qwen2}", "lora.target_modules=[w_proj]", "stage=plan")
    assert "lora.target_modules=[w_proj]: w_proj matches no module" in said
    assert "q_proj" in said


def test_sweep_names_the_cell_that_does_not_fit(command, random_qwen2):
    said = refused(command, "-m", f"model.path={random_qwen2}", "lora.target_modules=[w_proj],[q_proj]", "stage=plan")
    assert "lora.target_modules=[w_proj]" in said


BAD_FILES = {
    "broken JSON": ('{"instruction": "q"\n', "cannot be read|not JSON|JSON"),
    "missing column": (json.dumps({"question": "q", "output": "a"}) + "\n", "instruction"),
    "no rows": ("", "no usable row|no rows|empty"),
    "not text": ("\udcff\udcfe", "UTF-8|text"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_rows_that_cannot_be_used_fail_the_run_and_its_record_says_why(command, random_qwen2, tmp_path, kind):
    content, reason = BAD_FILES[kind]
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8", errors="surrogateescape")
    arguments = ("data=alpaca", "data.path=rows.jsonl", f"model.path={random_qwen2}", "scoring.forgetting=null")
    code, said, _ = command(*arguments)
    assert code == 2
    assert "Traceback" not in said
    message = said[said.index("error: ") :]
    assert "rows.jsonl" in message
    assert any(word in message for word in reason.split("|")), message
    for file in tmp_path.rglob("record.json"):  # a failure is a record; a half-written one is not
        assert json.loads(file.read_text(encoding="utf-8"))["status"] == "failed"
    assert not list(tmp_path.rglob(".*.partial"))


# --- what a task raises ----------------------------------------------------------------------------------------


def raising(error: BaseException):
    def does(composed):
        raise error

    return does


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigFault("a=1 is wrong; use 2"), 2, "error: a=1 is wrong; use 2\n"),
        (ModelFault("it does not fit"), 2, "error: it does not fit\n"),
        (RunFault("loss is nan at step 3"), 1, "error: loss is nan at step 3\n"),
        (OSError(28, "No space left on device", "/x"), 1, "error: /x: No space left on device\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied\n"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "error: ZeroDivisionError: division by zero\nset HARNESS_TRACEBACK=1",
        ),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to resume"),
        (signals.Interrupted(15), 143, "stopped; run the same command again to resume"),
    ],
)
def test_exit_code_tells_wrong_input_from_a_failed_run(command, error, code, said):
    got, err, _ = command(does=raising(error))
    assert (got, err.startswith(said)) == (code, True)
    assert "Traceback" not in err
    assert "Error executing job" not in err


def test_traceback_is_shown_where_asked_for(command, monkeypatch):
    monkeypatch.setenv(TRACEBACK, "1")
    code, said, _ = command(does=raising(RunFault("loss is nan")))
    assert code == 1
    assert "Traceback" in said
    assert "in does" in said
    assert said.endswith("error: loss is nan\n")


def test_finished_task_exits_with_nothing(command):
    assert command(does=lambda composed: None) == (0, "", "")


def test_version_is_the_harnesss(command):
    code, said, shown = command("--version")
    assert (code, said, shown) == (0, "", f"peft-harness {VERSION}\n")


def test_an_error_reaches_the_console_without_control_characters_and_secrets(command, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh-1234")
    _, said, _ = command(does=raising(ConfigFault("name=\x1b[2J of https://me:pass@host and abcdefgh-1234")))
    assert said == "error: name=\\x1b[2J of https://<secret>@host and <SOME_API_KEY>\n"


def test_a_console_that_cannot_show_it_changes_no_exit_code(command, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(sys, "stdout", Gone())
    assert command(does=raising(RunFault("lost")))[0] == 1
    assert command(does=lambda composed: print("↑"))[0] == 0


def test_whole_command_as_users_run_it(tmp_path):
    """Once as a process: what the shell sees."""
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-m", "harness", "lora.rr=4"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: lora.rr=4: there is no setting lora.rr; did you mean lora.r?\n"
    assert list(tmp_path.iterdir()) == []
