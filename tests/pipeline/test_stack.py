"""How deep our own calls are nested between ``task`` and ``optimizer.step()``: a reader follows at most ten frames."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.support.paths import ROOT
from tests.support.runs import command, overrides, write_rows

OURS = tuple(f"{ROOT / folder}/" for folder in ("harness", "hydra_plugins"))
MOST = 10


@pytest.fixture
def stacks():
    """Our frames, outermost first, at each step of any optimizer; lambdas and context managers count."""
    seen: list[list[str]] = []

    def look(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        frames = [frame for frame in inspect.stack(context=0) if frame.filename.startswith(OURS)]
        seen.append([f"{Path(each.filename).relative_to(ROOT)}:{each.function}" for each in reversed(frames)])

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


@pytest.fixture
def from_task(stacks, random_qwen2, tmp_path) -> Callable[..., list[str]]:
    """Our frames from ``task`` to the optimizer, of a command."""
    rows = write_rows(tmp_path / "rows")

    def run(*words: str) -> list[str]:
        done = command(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)
        assert done.code == 0, done.err
        frames = stacks[-1]
        print("\n".join(frames))
        return frames[frames.index("harness/__main__.py:task") :]

    return run


def test_a_single_run_nests_few_calls(from_task):
    assert len(from_task()) <= MOST


def test_a_cell_of_a_sweep_nests_few_calls(from_task):
    assert len(from_task("-m", "lora.r=2,4")) <= MOST
