"""The environments of the contestants: made by this module, kept in the cache, one for each, with pinned versions."""

import hashlib
import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TORCH = ("torch==2.13.0",)
PINS = ROOT / "constraints.txt"
OWN = "own"  # what a user of this project installs: the packages that only its development needs are not there


@dataclass(frozen=True)
class Environment:
    """A virtual environment: what pip installs, in this order."""

    name: str
    installs: tuple[tuple[str, ...], ...]
    versions: tuple[str, ...]  # of which the page tells
    files: tuple[Path, ...] = ()  # that say what is installed, where the words of ``installs`` differ by checkout

    @property
    def stamp(self) -> list[list[str]]:
        """Differs where what is installed does."""
        if self.files:
            return [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in self.files]
        return [list(words) for words in self.installs]


ENVIRONMENTS = {
    each.name: each
    for each in (
        Environment(
            "trl",
            (
                TORCH,
                (
                    "trl==1.16.0", "transformers==5.24.0", "peft==0.21.2", "datasets==5.2.0", "accelerate==1.15.0",
                    "pyyaml", "rich",
                ),
            ),
            ("trl", "transformers", "peft", "torch"),
        ),
        Environment(
            "llamafactory",
            (
                TORCH,
                (
                    "transformers==4.57.6", "peft==0.18.1", "trl==0.24.0", "datasets==4.0.0", "accelerate==1.11.0",
                    "torchdata==0.11.0", "omegaconf", "fire", "einops", "scipy", "pandas", "matplotlib",
                    "sentencepiece", "tiktoken", "protobuf", "av<=16", "fastapi", "uvicorn", "sse-starlette",
                    "tyro<0.9",
                ),
                ("--no-deps", "llamafactory==0.9.5"),
            ),
            ("llamafactory", "transformers", "peft", "torch"),
        ),
        Environment(
            OWN,
            (TORCH, ("-c", str(PINS), f"{ROOT}[packed]")),
            ("transformers", "peft", "torch"),
            files=(ROOT / "pyproject.toml", PINS),
        ),
        Environment("litgpt", (TORCH, ("litgpt==0.5.13", "requests")), ("litgpt", "torch")),
    )
}  # fmt: skip


class CannotInstall(Exception):
    """An environment could not be made; the text says which and what pip said."""


def make(environment: Environment, cache: Path) -> Path:
    """The environment's Python; installs what is not installed yet, which takes minutes and 1 to 2 GB.

    Raises:
        CannotInstall: pip ended with an error.
    """
    folder = cache / environment.name
    done = folder / "installed.json"
    python = folder / "venv" / "bin" / "python"
    wanted = environment.stamp
    if done.exists() and json.loads(done.read_text(encoding="utf-8")) == wanted and python.exists():
        return python
    print(f"installing {environment.name} in {folder}", file=sys.stderr, flush=True)
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    for words in environment.installs:
        command = [str(python), "-m", "pip", "install", "--quiet", *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise CannotInstall(f"{environment.name}: pip install {' '.join(words)} failed:\n{ended.stderr[-1500:]}")
    done.write_text(json.dumps(wanted), encoding="utf-8")
    return python


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of these packages, without importing them."""
    code = "import json, sys; from importlib.metadata import version; print(json.dumps([*map(version, sys.argv[1:])]))"
    found = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, json.loads(found.stdout), strict=True))
