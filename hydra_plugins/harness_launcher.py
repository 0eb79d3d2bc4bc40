"""Hydra's sweeper and launcher, as adapters to ``harness.sweep``.

Whatever sweeper proposed the jobs, their cells pass here: every cell is checked before any runs, cells that make the
same plan share one run, finished plans do not run again, and one failure does not stop the others.
"""

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from harness.sweep.cells import Cell
    from harness.sweep.launchers.base import Launcher as SweepLauncher
    from harness.sweep.launchers.packed import Packed
    from harness.sweep.launchers.worker import ConfigSource
    from harness.sweep.outcome import Outcome
    from harness.sweep.worklist import Dispatch


class GridSweeper(BasicSweeper):
    """Hydra's own grid, without its file ``multirun.yaml``, and without composing every cell twice."""

    def sweep(self, arguments: list[str]) -> "list[list[JobReturn]]":
        """Launch the product of all override values.

        Raises:
            ConfigFault: ``max_batch_size`` is set: batches would run before later cells are checked.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from harness.config.free_text import quoted
        from harness.errors import ConfigFault
        from harness.sweep import presets

        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None
        if self.max_batch_size is not None:
            raise ConfigFault(
                f"hydra.sweeper.max_batch_size={self.max_batch_size}: all cells of a grid are checked before any of "
                "them runs, so it cannot be run in batches; leave it null"
            )
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        presets.check_presets(self.hydra_context.config_loader, self.config, parser.parse_overrides(arguments))
        shared = [*self._parse_config(), *presets.level_overrides(self.config)]
        grid: list[list[str]] = []
        for arm in presets.arm_overrides(self.config):
            preset = [quoted(each, sweeps=True) for each in (*shared, *arm)]
            grid += self.split_arguments(parser.parse_overrides([*preset, *arguments]), None)[0]
        return [list(self.launcher.launch(grid, initial_job_idx=0))]


class PlanLauncher(Launcher):
    """Runs unique plans: in this process, one after another or packed, or on the workers of a launcher.

    Args:
        engine: the launcher, under its name in the configuration; None: this process, one after another.
    """

    def __init__(self, engine: "SweepLauncher | Packed | None" = None) -> None:
        self.launcher = engine

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig") -> None:
        """Called by Hydra before ``launch``."""
        from harness.config.compose import Composer
        from harness.sweep.launchers.base import refuse_under_torchrun

        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self._composer = Composer(hydra_context.config_loader, config)
        if self.launcher:
            refuse_under_torchrun("hydra/launcher")
            self.launcher.check()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> "list[JobReturn]":
        """Run the cells, or plan them with ``stage=plan``; one result per cell.

        Raises:
            ConfigFault: some cell cannot work; nothing has run.
            RunFault: some run failed; all others have run.
        """
        from hydra.core.utils import JobReturn, JobStatus

        from harness.config.schema import Stage
        from harness.stages.plan import show_plan
        from harness.sweep.execute import run_sweep
        from harness.sweep.refinement import outlook, run_refinement
        from harness.sweep.selection import run_selection

        try:
            cells, dispatch = self.prepare(job_overrides, initial_job_idx)
            if cells[0].options.stage is Stage.plan:
                show_plan(cells)
                if cells[0].options.refine.seeds is not None:
                    print(outlook(cells))
                return [JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED) for cell in cells]
            if cells[0].options.select.split is not None:
                cells, outcomes = run_selection(job_overrides, cells, self.prepare)
            elif cells[0].options.refine.seeds is not None:
                cells, outcomes = run_refinement(job_overrides, cells, dispatch, self.prepare)
            else:
                outcomes = run_sweep(cells, dispatch)
            return [job_return(outcome, cell.overrides) for cell, outcome in zip(cells, outcomes, strict=True)]
        finally:
            self.close()

    def close(self) -> None:
        """End the launcher's workers."""
        if self.launcher:
            self.launcher.close()

    def prepare(self, job_overrides: Sequence[Sequence[str]], first: int = 0) -> "tuple[list[Cell], Dispatch]":
        """The cells of the jobs, numbered from ``first``, and what runs some of them.

        Raises:
            ConfigFault: some cell cannot work.
        """
        from hydra.core.utils import setup_globals

        from harness.sweep.cells import effective_overrides
        from harness.sweep.dispatch import run_here, run_on_workers
        from harness.sweep.grid import grid_cells
        from harness.sweep.launchers.packed import Packed

        setup_globals()
        # Without options: a sweep that is resumed with another limit of failures keeps its name and its group.
        typed = list(self.config.hydra.overrides.task)
        name = " ".join(effective_overrides(typed) or typed)
        composer = self._composer
        here = self.launcher is None or not self.launcher.elsewhere
        grid = ((composer.task(each), partial(composer.own, each)) for each in job_overrides)
        cells = grid_cells(grid, name, here)
        if isinstance(self.launcher, Packed):
            from harness.sweep.packs import run_packed

            return cells, partial(run_packed, self.launcher)
        if self.launcher:
            return cells, partial(run_on_workers, self.launcher, self._config_source())
        # Reversed: of cells that share a plan the first one runs, under its own name.
        numbered = reversed(list(enumerate(zip(cells, job_overrides, strict=True), first)))
        jobs = {cell.plan.fingerprint: (number, overrides) for number, (cell, overrides) in numbered}
        return cells, partial(run_here, partial(self._run_job, jobs))

    def _run_job(self, jobs: "Mapping[str, tuple[int, Sequence[str]]]", cell: "Cell") -> "Outcome":
        """Run the cell as a Hydra job in this process."""
        from hydra.core.utils import JobStatus, run_job

        from harness.runtime import memory
        from harness.sweep.outcome import Outcome, Status, outcome_of_error

        started = time.monotonic()
        done = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=self._composed(cell, *jobs[cell.plan.fingerprint]),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        seconds = time.monotonic() - started
        if done.status is JobStatus.COMPLETED:
            return Outcome(cell.plan.fingerprint, Status.finished, seconds=seconds, record=done.return_value)
        error = done._return_value  # return_value would raise it
        memory.drop_frames(error)
        return outcome_of_error(cell.plan.fingerprint, error, seconds)

    def _config_source(self) -> "ConfigSource":
        """What a worker needs to compose the same configuration."""
        from harness.sweep.launchers.worker import ConfigSource

        sources = self.config.hydra.runtime.config_sources
        [main] = [str(each.path) for each in sources if each.provider == "main"]
        own = ("main", "hydra", "schema", "peft-harness")  # a worker has these by itself
        others = [each for each in sources if each.provider not in own]
        return ConfigSource(
            config_dir=main,
            config_name=str(self.config.hydra.job.config_name),
            searchpath=tuple(f"{each.schema}://{each.path}" for each in others),
            cwd=os.getcwd(),
        )

    def _composed(self, cell: "Cell", number: int, overrides: Sequence[str]) -> "DictConfig":
        """The configuration as Hydra's ``run_job`` takes it."""
        from omegaconf import open_dict

        composed = self._composer.whole(overrides)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
            composed.sweep.name = cell.options.sweep_name
            composed.sweep.pause_after, composed.rerun = cell.options.pause_after, cell.options.rerun
        return composed


def job_return(outcome: "Outcome", overrides: Sequence[str] | None = None) -> "JobReturn":
    """The outcome in Hydra's form."""
    from hydra.core.utils import JobReturn, JobStatus

    from harness.errors import RunFault

    if outcome.failed:
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=RunFault(outcome.message))
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=outcome.record)
