"""``peft-harness demo``: four trainings of the embedded model, their page in a browser, and three commands to try.

The runs are those of ``-m experiment=demo``; running it again reuses them and takes seconds.
"""

import json
import os
import re
import shlex
import sys
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, raise_together
from harness.record import store
from harness.report.write import PAGE_NAME
from harness.stages.sweep_view import find_sweep
from harness.sweep.manifest import MANIFEST_NAME

NAME = "demo"
USAGE = "usage: peft-harness demo [--no-open] [runs_dir=FOLDER] [further overrides] (also: python -m harness demo)"
QUESTION = re.compile(r"Instruction: (.*)\nInput: (.*)\nAnswer: ")  # the template of the embedded questions
SECOND = "seed=0,1,2"


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    overrides: tuple[str, ...] = ()
    browser: bool = True

    @property
    def words(self) -> list[str]:
        """The command whose runs these are."""
        return ["-m", f"experiment={NAME}", f"sweep.name={NAME}", *self.overrides]

    @property
    def runs_dir(self) -> Path:
        """Where the runs are."""
        named = [word.partition("=")[2] for word in self.overrides if word.startswith("runs_dir=")]
        return Path(named[-1] if named else "runs").expanduser().absolute()


def read_arguments(arguments: Sequence[str]) -> Request:
    """What follows ``demo`` on the command line.

    Raises:
        ConfigFault: some of it is not an override, or one that another command takes.
    """
    words = [word for word in arguments if word != "--no-open"]
    taken = ("stage=", "experiment=", "sweep.name=")
    wrong = [word for word in words if word.startswith(("-", *taken)) or "=" not in word]
    raise_together([f"demo: {word} is not an argument of this command; {USAGE}" for word in wrong])
    return Request(tuple(words), len(words) == len(arguments))


def follow_up(request: Request, environment: Mapping[str, str] = os.environ) -> None:
    """Open the page of the runs, if that is wanted and there is a screen; say where it is, and what to type next.

    Raises:
        ConfigFault: the folder of the runs holds no such sweep.
    """
    folder = find_sweep(request.runs_dir, NAME)
    if folder is None or not (folder / PAGE_NAME).is_file():
        raise ConfigFault(f"runs_dir={request.runs_dir} holds no page of this command; see the messages above")
    page = folder / PAGE_NAME
    opened = request.browser and has_screen(environment) and show_page(page)
    print(f"\nthe page of these runs{', opened in the browser' if opened else ''}: {page}\n\nnext:")
    for what, words in next_commands(request, best_run(request.runs_dir, folder)):
        print(f"  {what}:\n    {_program()} {' '.join(map(quoted, words))}")


def next_commands(request: Request, best: Mapping[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    """Three commands, each with what it shows."""
    where = [word for word in request.overrides if word.startswith("runs_dir=")]
    if best is None:
        yield "how each run ended", ["stage=status", *where]
    else:
        instruction, asked = first_question(request.runs_dir, best)
        words = ["stage=generate", f"run={best['fingerprint'][:8]}", f"prompt={instruction}", f"input={asked}", *where]
        yield "ask the run with the lowest loss, before and after training", words
    again = ["-m", f"experiment={NAME}", SECOND, *request.overrides]
    yield "does the order hold with two more seeds (eight more trainings)", again
    yield "all methods with their numbers of parameters, without training", ["stage=plan", "-m", "peft=glob(*)"]


def best_run(runs_dir: Path, sweep: Path) -> dict[str, Any] | None:
    """The finished run of the sweep whose loss is lowest; None if none has one."""
    cells = json.loads((sweep / MANIFEST_NAME).read_text(encoding="utf-8"))["cells"]
    found = [store.read_record(runs_dir, name) for name in sorted({cell["fingerprint"] for cell in cells})]
    scored = [record for record in found if record and record["status"] == "finished" and record["predictions"]]
    return min(scored, key=lambda record: record["scores"]["after"]["loss"], default=None)


def first_question(runs_dir: Path, record: Mapping[str, Any]) -> tuple[str, str]:
    """Instruction and input of the first row that this run was scored on; dots for rows of another template."""
    file = runs_dir / record["fingerprint"] / record["predictions"]
    with file.open(encoding="utf-8") as lines:
        found = QUESTION.fullmatch(json.loads(next(lines))["prompt"])
    return (found[1], found[2]) if found else ("...", "...")


def has_screen(environment: Mapping[str, str], system: str = sys.platform) -> bool:
    """Whether a page that is opened here would be seen by who typed the command."""
    if environment.get("BROWSER"):
        return True
    if system in ("win32", "darwin"):
        return "SSH_CONNECTION" not in environment
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def show_page(page: Path) -> bool:
    """Open the page in the browser; whether one was found that does not take over this terminal."""
    try:
        browser = webbrowser.get()
        if type(browser) is webbrowser.GenericBrowser and not os.environ.get("BROWSER"):
            return False  # lynx, w3m
        return browser.open(page.as_uri())
    except (webbrowser.Error, OSError):
        return False


def quoted(word: str) -> str:
    """The word as bash, zsh and PowerShell take it: in double quotes if it has characters that they would read."""
    if re.fullmatch(r"[\w./=:-]+", word):
        return word
    return shlex.quote(word) if re.search(r'["$`!]', word) else f'"{word}"'


def _program() -> str:
    return "python -m harness" if Path(sys.argv[0]).name == "__main__.py" else "peft-harness"
