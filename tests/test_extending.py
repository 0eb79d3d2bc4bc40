"""docs/extending.md: every example is short, and every file and command of it works, in an empty folder."""

import os
import re
import subprocess
import sys

import pytest

from harness.scoring import custom
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {title: text for _, title, text in BLOCKS if title}
COMMANDS = [line for kind, _, text in BLOCKS if kind == "sh" for line in text.splitlines()]
STUDY = 4  # commands of the first block, which tests/test_study.py runs from a wheel
FAST = (
    *(
        "data.limits={train: 4, validation: 2, test: 2}",
        "trainer.max_steps=1",
        "trainer.batch_size=2",
        "select.seeds=1",
    ),
    *("trainer.evaluations=1", "trainer.threads=1", "scoring.generation.max_new_tokens=2", "scoring.forgetting=null"),
)
DRIVER = """
import os, shlex, sys
from tests.support.runs import command
folder, fast = sys.argv[1], sys.argv[2:]
os.chdir(folder)
sys.path.insert(0, folder)
for line in sys.stdin.read().splitlines():
    words = shlex.split(line, comments=True)[3:]
    report = "stage=report" in words
    done = command(*words, *([] if report else fast))
    print(f"{done.code} {line}", flush=True)
    if done.code:
        print(done.err, flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "my_pkg" / "__init__.py").write_text("")
    return tmp_path


def test_every_example_has_fewer_than_20_lines():
    long = [title or text.splitlines()[0] for kind, title, text in BLOCKS if len(text.splitlines()) >= 20]
    assert long == []
    assert len(FILES) > 10


def test_the_page_names_every_column_that_a_metric_may_take():
    assert all(f"`{name}`" in PAGE for name in custom.COLUMNS)


@pytest.mark.slow
def test_every_command_of_the_page_works(folder):
    commands = [line for line in COMMANDS[STUDY:] if "harness.testing" not in line]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(folder), *FAST],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=folder,
        check=False,
    )
    assert done.stdout.splitlines() == [f"0 {line}" for line in commands], done.stdout + done.stderr
    assert "Costs" in (folder / "runs" / "report" / "report.md").read_text(encoding="utf-8")
    assert list((folder / "lines").glob("*.txt"))


@pytest.mark.slow
def test_the_package_of_the_page_keeps_the_contract(folder):
    command = [sys.executable, "-W", "ignore", "-m", "harness.testing", "plain_lora", "my_pkg.metrics:politeness"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_the_commands_of_the_first_block_are_those_of_a_new_study():
    assert [line.partition("#")[0].strip() for line in COMMANDS[:STUDY]] == [
        "peft-harness new my_study",
        "cd my_study",
        "python -m harness -m experiment=my_study",
        "python -m harness.testing my_study",
    ]
