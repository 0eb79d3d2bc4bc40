"""Hydra sweeper and launcher that turn a grid into unique plans.

Whatever sweeper proposed the jobs, they pass here: every cell is checked before any runs, cells that make the
same plan share one run, finished plans are not run again, and one failure does not stop the others.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class GridSweeper(BasicSweeper):
    """Hydra's own grid, without its file ``multirun.yaml``, and without composing every cell twice."""

    def sweep(self, arguments: list[str]) -> "list[list[JobReturn]]":
        """Launch the product of all override values.

        Raises:
            ConfigFault: ``max_batch_size`` is set: batches would run before later cells are checked.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from harness.errors import ConfigFault

        assert self.hydra_context is not None
        assert self.launcher is not None
        if self.max_batch_size is not None:
            raise ConfigFault(
                f"hydra.sweeper.max_batch_size={self.max_batch_size}: a grid is checked as a whole before any of it "
                "runs, one run at a time; leave it null"
            )
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        [grid] = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        return [list(self.launcher.launch(grid, initial_job_idx=0))]


class PlanLauncher(Launcher):
    """Runs unique plans one after the other in this process."""

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig") -> None:
        """Called by Hydra before ``launch``."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> "list[JobReturn]":
        """Run the jobs; each returns the record of its plan.

        Raises:
            ConfigFault: some cell cannot work; nothing has run then.
            RunFault: some run failed; all others have run then.
        """
        from hydra.core.utils import setup_globals
        from omegaconf import OmegaConf

        from harness import sweep

        setup_globals()
        name = " ".join(self.config.hydra.overrides.task)
        jobs = [self._compose(each, initial_job_idx + i, name) for i, each in enumerate(job_overrides)]
        own = [OmegaConf.masked_copy(job, [key for key in job if key != "hydra"]) for job in jobs]
        cells = sweep.cells_of(
            [(list(job.hydra.overrides.task), each) for job, each in zip(jobs, own, strict=True)], name
        )
        return sweep.work(cells, lambda index: self._run(jobs[index]))

    def _run(self, job: "DictConfig") -> "JobReturn":
        from hydra.core.utils import run_job

        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _compose(self, overrides: Sequence[str], index: int, name: str) -> "DictConfig":
        from omegaconf import open_dict

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = index
            composed.sweep.name = composed.sweep.name or name
        return composed
