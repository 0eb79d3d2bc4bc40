"""Hydra sweeper and launcher that turn a grid into unique plans.

Whatever sweeper proposed the jobs, they pass here: every cell is checked before any runs, cells that make the
same plan share one run, finished plans are not run again, and one failure does not stop the others.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from pathlib import Path

    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from harness.sweep.cells import Cell
    from harness.sweep.launchers.base import Launcher as Backend
    from harness.sweep.launchers.worker import Job, Outcome
    from harness.sweep.worklist import Begin, Worklist

log = logging.getLogger("harness.launcher")


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
    """Runs unique plans: one after the other in this process, or on an engine."""

    def __init__(self, engine: "Backend | None" = None) -> None:
        self.engine = engine

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig") -> None:
        """Called by Hydra before ``launch``."""
        from harness.config.compose import Composer
        from harness.sweep.launchers.base import refuse_under_torchrun

        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self._composer = Composer(hydra_context.config_loader, config)
        if self.engine:
            refuse_under_torchrun("hydra/launcher")
            self.engine.check()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> "list[JobReturn]":
        """Run the jobs; each returns the record of its plan.

        Raises:
            ConfigFault: some cell cannot work; nothing has run then.
            RunFault: some run failed; all others have run then.
        """
        from harness.sweep import execute

        try:
            return execute.run_sweep(*self.prepare(job_overrides, initial_job_idx))
        finally:
            self.close()

    def close(self) -> None:
        """End the engine's workers."""
        if self.engine:
            self.engine.close()

    def prepare(self, job_overrides: Sequence[Sequence[str]], first: int = 0) -> "tuple[list[Cell], Begin]":
        """The cells of the jobs, numbered from ``first``, and what runs some of them.

        Raises:
            ConfigFault: some cell cannot work.
        """
        from hydra.core.utils import setup_globals

        from harness.sweep.cells import effective_overrides
        from harness.sweep.grid import grid_cells

        setup_globals()
        # Without options: a sweep that goes on under another limit of failures keeps its name and its group.
        given = list(self.config.hydra.overrides.task)
        name = " ".join(effective_overrides(given) or given)
        composer = self._composer
        cells = grid_cells(((composer.task(each), partial(composer.own, each)) for each in job_overrides), name)
        # Reversed: of cells that share a plan the first one runs, under its own name.
        numbered = reversed(list(enumerate(zip(cells, job_overrides, strict=True), first)))
        jobs = {cell.plan.fingerprint: (number, overrides) for number, (cell, overrides) in numbered}
        return cells, self._elsewhere if self.engine else partial(self._here, jobs)

    def _here(
        self,
        jobs: "Mapping[str, tuple[int, Sequence[str]]]",
        todo: "Sequence[Cell]",
        folder: "Path",
        course: "Worklist",
    ) -> "Iterator[tuple[Cell, JobReturn]]":
        """One after the other in this process."""
        from hydra.core.utils import run_job

        from harness.runtime import memory

        for number, cell in enumerate(todo):
            if course.over:
                return
            answer = course.looked_up(cell)
            if answer is not None:
                yield cell, answer
                continue
            place = (course.ended + 1, course.total, cell.plan.fingerprint, cell.name)
            log.info("[%d/%d] %s: %s; left: %s", *place, course.still(todo[number:]))
            result = run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=self._composed(cell, *jobs[cell.plan.fingerprint]),
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            if isinstance(result._return_value, Exception):
                memory.drop_frames(result._return_value)  # Hydra keeps the error to the sweep's end
            yield cell, result

    def _elsewhere(
        self, todo: "Sequence[Cell]", folder: "Path", course: "Worklist"
    ) -> "Iterator[tuple[Cell, JobReturn]]":
        """In the engine's processes; a failure is in the result, never raised."""
        import uuid

        from hydra.core.utils import JobReturn, JobStatus

        from harness.errors import HeldByAnotherProcess, RunFault
        from harness.record import store
        from harness.record.files import atomic_write_text
        from harness.sweep.launchers import worker

        stop = folder / "stops" / uuid.uuid4().hex[:12]  # of this command, not of others on the same sweep
        jobs = {cell.plan.fingerprint: self._job(cell, folder, stop) for cell in todo}
        cells = {cell.plan.fingerprint: cell for cell in todo}
        for outcome in self._outcomes(jobs, cells, folder):
            cell = cells[outcome.fingerprint]
            if outcome.status == worker.IDLE:
                continue
            if outcome.status == worker.ELSEWHERE:
                yield (
                    cell,
                    JobReturn(
                        cell.overrides, status=JobStatus.FAILED, _return_value=HeldByAnotherProcess(outcome.message)
                    ),
                )
                continue
            result = JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED)
            if outcome.status == worker.FINISHED:
                result.return_value = store.read_record(cell.options.runs_dir, outcome.fingerprint)
            else:
                result.status, result.return_value = JobStatus.FAILED, RunFault(outcome.message)
            if outcome.answer:
                course.answers[outcome.fingerprint] = outcome.answer
            said = " ".join(text for text in (outcome.message, outcome.answer) if text)
            log.info(
                "[%d/%d] %s: %s: %s after %.0f s%s",
                *(course.ended + 1, course.total, outcome.fingerprint, cell.name, outcome.status, outcome.seconds),
                f": {said}" if said and outcome.status == worker.FINISHED else "",
            )
            yield cell, result
            if course.over and not stop.exists():
                # A file, because it also reaches jobs that wait in a queue.
                atomic_write_text(stop, "")

    def _outcomes(self, jobs: "Mapping[str, Job]", cells: "Mapping[str, Cell]", folder: "Path") -> "Iterator[Outcome]":
        """The engine's; records of processes that died without a word, or were ended with this one, say so."""
        from harness.sweep.launchers import worker

        assert self.engine is not None
        left = set(jobs)
        try:
            for outcome in self.engine.run(list(jobs.values()), folder):
                left.remove(outcome.fingerprint)
                if outcome.status == worker.DIED:
                    runs_dir = cells[outcome.fingerprint].options.runs_dir
                    worker.mark_interrupted(jobs[outcome.fingerprint], runs_dir, outcome.message)
                yield outcome
        except BaseException:
            if not self.engine.outlives:
                self.engine.close()
                for fingerprint in left:
                    runs_dir = cells[fingerprint].options.runs_dir
                    worker.mark_interrupted(jobs[fingerprint], runs_dir, "the command that had started it was stopped")
            raise

    def _job(self, cell: "Cell", folder: "Path", stop: "Path") -> "Job":
        """The cell as text, for a worker to compose again."""
        import os

        from harness.plan.spec import digest
        from harness.record import provenance
        from harness.sweep.launchers.worker import ConfigSource, Job

        found = self.config.hydra.runtime.config_sources
        [main] = [str(each.path) for each in found if each.provider == "main"]
        others = [each for each in found if each.provider not in ("main", "hydra", "schema")]
        return Job(
            fingerprint=cell.plan.fingerprint,
            name=cell.name,
            model=digest(cell.plan.as_dict()["model"]),
            overrides=cell.overrides,
            sweep_name=cell.options.sweep_name,
            source=ConfigSource(
                config_dir=main,
                config_name=str(self.config.hydra.job.config_name),
                searchpath=tuple(f"{each.schema}://{each.path}" for each in others),
                cwd=os.getcwd(),
            ),
            code=provenance.code_version(),
            folder=str(folder),
            tries=cell.tries,
            stop=str(stop),
        )

    def _composed(self, cell: "Cell", number: int, overrides: Sequence[str]) -> "DictConfig":
        """What Hydra's ``run_job`` takes."""
        from omegaconf import open_dict

        composed = self._composer.whole(overrides)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
            composed.sweep.name = cell.options.sweep_name
        return composed
