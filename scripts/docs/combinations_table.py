#!/usr/bin/env python
"""Write the table of docs/launchers.md that says what goes with what, by asking the code for each pair.

    python scripts/docs/combinations_table.py           # rewrites the section between the markers
    python scripts/docs/combinations_table.py --check   # writes nothing, exits with 1 if it is stale

A pair is composed as a command composes it, and the checks that a command passes before it loads anything decide:
those of the configuration, of a launcher under torchrun, of what can train in a pack, and of checkpoints.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sections import row, update

from harness.errors import ConfigFault

ROOT = Path(__file__).resolve().parents[2]
RESUME = "resume"  # nothing to set: whether an interrupted run has a checkpoint
PACKED = "packed"


@dataclass(frozen=True)
class Feature:
    """What can be combined."""

    label: str
    overrides: tuple[str, ...] = ()
    processes: int = 1  # that torchrun starts
    launcher: bool = False


FEATURES = {
    "ddp": Feature("`trainer/parallel=ddp`", ("trainer/parallel=ddp",), 2),
    "fsdp": Feature("`trainer/parallel=fsdp`", ("trainer/parallel=fsdp",), 2),
    PACKED: Feature("`hydra/launcher=packed`", launcher=True),
    "joblib": Feature("`hydra/launcher=joblib`", launcher=True),
    "ray": Feature("`hydra/launcher=ray`", launcher=True),
    "slurm": Feature("`hydra/launcher=slurm`", launcher=True),
    "quantized": Feature("quantized base (`model.quantization=nf4`)", ("model.quantization=nf4",)),
    "checkpointing": Feature("`trainer.gradient_checkpointing=true`", ("trainer.gradient_checkpointing=true",)),
    RESUME: Feature("resume after a stop"),
    "prune": Feature("`sweep.prune=halving`", ("sweep.prune=halving", "trainer.evaluations=8")),
}


@dataclass(frozen=True)
class Answer:
    """What the code says to a pair."""

    mark: str  # yes, alone (it runs, but not in a pack) or no
    reason: str = ""


def main() -> int:
    """Rewrite the section, or report that it is stale."""
    return update(ROOT, [("docs/launchers.md", "combinations", lines())], "scripts/docs/combinations_table.py", __doc__)


def lines() -> Iterator[str]:
    """The table, and below it the reasons."""
    notes: dict[str, int] = {}
    answers = {frozenset(pair): answer(*pair) for pair in combinations(FEATURES, 2)}
    yield row("", *FEATURES)
    yield row("---", *[":-:"] * len(FEATURES))
    for one, feature in FEATURES.items():
        cells = ["·" if one == other else _cell(answers[frozenset((one, other))], notes) for other in FEATURES]
        yield row(feature.label, *cells)
    yield ""
    yield "\\\n".join(f"[{number}] {reason}" for reason, number in notes.items())


def _cell(found: Answer, notes: dict[str, int]) -> str:
    mark = {"yes": "✓", "no": "–"}.get(found.mark, found.mark)
    return mark if not found.reason else f"{mark} [{notes.setdefault(found.reason, len(notes) + 1)}]"


def answer(one: str, other: str) -> Answer:
    """Whether the two go together; a refusal is the message of the command, up to its remedy."""
    pair = {name: FEATURES[name] for name in (one, other)}
    launchers = [name for name, feature in pair.items() if feature.launcher]
    if len(launchers) > 1:
        return Answer("no", "a command has one launcher")
    if all(feature.processes > 1 for feature in pair.values()):
        return Answer("no", "a run has one strategy")
    try:
        with _started_by_torchrun(max(feature.processes for feature in pair.values())):
            if launchers:
                _refuse_launcher()
            plan = _read([word for feature in pair.values() for word in feature.overrides])
    except ConfigFault as fault:
        return Answer("no", str(fault).splitlines()[0])
    if RESUME in pair and not _resumes(plan):
        return Answer("no", "shards are not checkpointed: an interrupted run restarts from the beginning")
    if PACKED in pair and (why := _why_alone(plan)):
        return Answer("alone", why)
    return Answer("yes")


@contextmanager
def _started_by_torchrun(processes: int) -> Iterator[None]:
    """As in one of so many processes."""
    before = os.environ.get("WORLD_SIZE")
    os.environ["WORLD_SIZE"] = str(processes)
    try:
        yield
    finally:
        os.environ.pop("WORLD_SIZE")
        if before is not None:
            os.environ["WORLD_SIZE"] = before


def _read(overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_dir

    from harness.config.compose import register_schema
    from harness.plan.read import read_config
    from harness.shipped import shipped_folder

    register_schema()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3"):
        return read_config(compose("config", overrides=overrides))[0]


def _refuse_launcher() -> None:
    from harness.sweep.launchers.base import refuse_under_torchrun

    refuse_under_torchrun("hydra/launcher")


def _resumes(plan: Any) -> bool:
    from harness.config.schema import can_checkpoint

    return can_checkpoint(plan.trainer.parallel.strategy)


def _why_alone(plan: Any) -> str | None:
    from harness.training.packed.eligible import why_alone

    return why_alone(plan)


if __name__ == "__main__":
    sys.exit(main())
