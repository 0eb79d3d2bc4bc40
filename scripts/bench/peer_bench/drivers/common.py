"""The harness's own model and rows, for the scripts beside this one."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))  # the checkout
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # scripts/bench

import plans


def read_plan(overrides: Sequence[str]) -> Any:
    """The plan of a command."""
    return plans.read_plan(overrides)[0]


def load(overrides: Sequence[str], threads: int = 1) -> tuple[Any, Any, Any]:
    """Plan, base model and rows of a command."""
    from harness.pipeline import steps
    from harness.pipeline.cache import ProcessCache

    plan = read_plan(overrides)
    cache = ProcessCache()
    base = steps.load(plan, cache, threads).base
    return plan, base, steps.tokenize(plan, cache, base)
