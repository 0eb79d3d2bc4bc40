"""peft-harness completion: bash itself completes a group, an option and a setting, without torch."""

import os
import shutil
import subprocess
import sys

import pytest

from harness.stages.completion import SHELLS
from tests.support.paths import ROOT
from tests.support.runs import command

TYPED = {
    "peft-harness peft=lo": {"peft=loha", "peft=lokr", "peft=lora"},
    "peft-harness -m model=qwen3": {"model=qwen3_0_6b"},
    "peft-harness seed=1 trainer.lear": {"trainer.learning_rate="},
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.posix
def test_bash_completes_what_is_typed_and_torch_is_not_imported(tmp_path):
    program = tmp_path / "peft-harness"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom harness.__main__ import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules\n"
    )
    program.chmod(0o755)
    lines = ['eval "$(peft-harness completion bash)"', "complete -p peft-harness"]
    for typed in TYPED:
        words = typed.split()
        lines += [f"COMP_LINE='{typed}' COMP_POINT={len(typed)} COMP_CWORD={len(words) - 1}"]
        lines += ["hydra_bash_completion", 'echo "> ${COMPREPLY[@]}"']
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    shown, *completed = done.stdout.splitlines()
    assert shown.endswith("-F hydra_bash_completion peft-harness")
    assert [set(line.removeprefix("> ").split()) for line in completed] == list(TYPED.values())


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
