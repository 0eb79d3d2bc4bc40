"""peft-harness completion: the shells themselves complete a group, an option and a setting, without torch."""

import os
import select
import shutil
import subprocess
import sys
import time

import pytest

from harness.stages.completion import SHELLS
from tests.support.paths import ROOT
from tests.support.runs import command

TYPED = {
    "peft-harness peft=lo": {"peft=loha", "peft=lokr", "peft=lora"},
    "peft-harness -m model=qwen3": {"model=qwen3_0_6b"},
    "peft-harness seed=1 trainer.lear": {"trainer.learning_rate="},
}


needs = {shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}") for shell in SHELLS}


@pytest.fixture
def environment(tmp_path):
    """Where the command is installed, and fails if it imports torch."""
    program = tmp_path / "peft-harness"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom harness.__main__ import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules\n"
    )
    program.chmod(0o755)
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


@needs["bash"]
@pytest.mark.slow
@pytest.mark.posix
def test_bash_completes_what_is_typed_and_torch_is_not_imported(environment, tmp_path):
    lines = ['eval "$(peft-harness completion bash)"', "complete -p peft-harness"]
    for typed in TYPED:
        words = typed.split()
        lines += [f"COMP_LINE='{typed}' COMP_POINT={len(typed)} COMP_CWORD={len(words) - 1}"]
        lines += ["hydra_bash_completion", 'echo "> ${COMPREPLY[@]}"']
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    shown, *completed = done.stdout.splitlines()
    assert shown.endswith("-F hydra_bash_completion peft-harness")
    assert [set(line.removeprefix("> ").split()) for line in completed] == list(TYPED.values())


@needs["fish"]
@pytest.mark.slow
@pytest.mark.posix
def test_fish_completes_what_is_typed(environment, tmp_path):
    lines = ["peft-harness completion fish | source"]
    for typed in TYPED:
        lines += [f"complete -C '{typed}'", "echo ."]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert [set(part.split()) for part in done.stdout.split(".\n")[:-1]] == list(TYPED.values())


@needs["zsh"]
@pytest.mark.slow
@pytest.mark.posix
def test_zsh_completes_at_tab(environment, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
        env=environment | {"TERM": "xterm", "PS1": "ready> "}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def until(*marks, seconds=120.0):
        screen, end = "", time.monotonic() + seconds
        while not all(mark in screen for mark in marks):
            assert time.monotonic() < end, screen
            if select.select([ours], [], [], 0.1)[0]:
                screen += os.read(ours, 65536).decode(errors="replace")

    try:
        until("ready> ")
        os.write(ours, b'eval "$(peft-harness completion zsh)"; echo can complete | tr a-z A-Z\n')
        until("CAN COMPLETE", "ready> ")
        os.write(ours, b"peft-harness peft=lo\t\t")  # the first Tab finds no more letters, the second lists
        until("peft=loha", "peft=lokr", "peft=lora")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_lines(shell):
    done = command("completion", shell)
    assert done.code == 0, done.err
    assert "-sc query=" in done.out
    assert "complete " in done.out
    assert done.out.startswith("autoload") is (shell == "zsh")


@pytest.mark.parametrize("words", [(), ("powershell",), ("bash", "zsh")])
def test_another_shell_is_refused(words):
    done = command("completion", *words)
    assert done.code == 2
    assert "is not one of bash, zsh, fish; usage: eval" in done.err
