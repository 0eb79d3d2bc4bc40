"""peft-harness completion: the shells themselves complete a group, an option and a setting, without torch."""

import os
import shutil
import subprocess
import sys

import pytest

from harness.stages.completion import SHELLS
from tests.support.paths import ROOT
from tests.support.runs import command
from tests.support.terminal import in_terminal

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
    with in_terminal(["zsh", "-f", "-i"], cwd=tmp_path, env=environment | {"PS1": "ready> "}) as shell:
        shell.until("ready> ")
        shell.type('eval "$(peft-harness completion zsh)"; echo can complete | tr a-z A-Z\n')
        shell.until("CAN COMPLETE", "ready> ")
        shell.type("peft-harness peft=lo\t\t")  # the first Tab finds no more letters, the second lists
        shell.until("peft=loha", "peft=lokr", "peft=lora")


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
