"""One cell of a grid: its overrides and the plan that they make."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.plan.spec import Options, Plan
from harness.record import store

# Overrides that do not change a result, and so are not part of a cell's name.
OVERRIDES_WITHOUT_EFFECT = (
    *("runs_dir=", "rerun=", "keep=", "stage=", "note=", "tags=", "confirm=", "hydra", "tracker"),
    *(
        "sweep.",
        "select.",
        "refine.",
        "claim.",
        "report.",
        "export.",
        "diff.",
        "archive.",
        "import_results.",
        "bundle.",
        "chat.",
        "serve.",
    ),
    *("trainer.threads=", "trainer.checkpoint_", "trainer.on_oom="),
)


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: its overrides and the plan that they make. Several cells may share a plan."""

    overrides: tuple[str, ...]
    plan: Plan
    options: Options
    attempts: int | None = None  # attempts on record when the command began; None: not counted

    @property
    def name(self) -> str:
        """The overrides as typed, without those that do not change a result."""
        return " ".join(effective_overrides(self.overrides)) or self.plan.method

    @property
    def folder(self) -> Path:
        """The folder of the run's record and lock."""
        return store.record_path(self.options.runs_dir, self.plan.fingerprint).parent

    def read_record(self) -> dict[str, Any] | None:
        """The record of this cell's plan, whatever its status and code version."""
        return store.read_record(self.options.runs_dir, self.plan.fingerprint)

    def with_attempts(self) -> "Cell":
        """The cell with the number of attempts at its plan that are on record now."""
        record = self.read_record()
        return replace(self, attempts=record["attempt"] if record else 0)


def effective_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides that can change a result."""
    return [text for text in overrides if not text.lstrip("+~").startswith(OVERRIDES_WITHOUT_EFFECT)]


def task_overrides() -> tuple[str, ...]:
    """The overrides of the cell that Hydra is running now."""
    from hydra.core.hydra_config import HydraConfig

    return tuple(HydraConfig.get().overrides.task)


def cell_from_hydra(plan: Plan, options: Options) -> tuple[Cell, bool]:
    """The cell that Hydra is running now, and whether it belongs to a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    in_sweep = not OmegaConf.is_missing(hydra.job, "num")
    return Cell(tuple(hydra.overrides.task), plan, options), in_sweep


def grid_of_command() -> dict[str, Any]:
    """The grid that an experiment file brings into the command's configuration."""
    from hydra.core.hydra_config import HydraConfig

    return dict(HydraConfig.get().sweeper.params or {})
