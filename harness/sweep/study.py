"""Studies: Optuna proposes cells, the sweep's launcher runs them, their scores decide what is proposed next.

A study is kept as a journal in its sweep's folder, so that the same command goes on with it. Trials are plans like
those of a grid: one that was run before, by this study or by any other command, gives its record again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Stage
from harness.errors import ConfigFault, HarnessError, RunFault
from harness.plan.spec import digest, plan_from_dict
from harness.record import store
from harness.sweep import execute, manifest, search_space
from harness.sweep.cells import OVERRIDES_WITHOUT_EFFECT, Cell, reusable
from harness.sweep.grid import check_models
from harness.sweep.summary import conclude
from harness.sweep.worklist import Begin, Worklist

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)


Prepare = Callable[[Sequence[Sequence[str]], int], tuple[list[Cell], Begin]]


JOURNAL = "study.journal"


HOPELESS = 5  # trials refused, and none has ever run: then the command is wrong, not the draw


@dataclass
class Session:
    """One command's work on a study."""

    settings: search_space.StudySettings
    space: "dict[str, BaseDistribution]"
    fixed: list[str]
    prepare: Prepare
    folder: Path
    runs_dir: Path
    max_failures: int | None

    def run(self) -> "list[JobReturn]":
        """Run trials until there are ``n_trials``; show all of them, and the best.

        Raises:
            ConfigFault: no trial can work, the objective is none that the plans have, or a score of the test split.
            RunFault: some trial failed; all others have run then.
        """
        from harness.record import locks

        lock = locks.take_lock(self.folder)
        if lock is None:
            owner = locks.describe(locks.holder(self.folder) or {})
            raise RunFault(
                f"{owner} works on this study in {self.folder}; wait, or give hydra.sweeper.seed another value"
            )
        with lock, _quiet():
            study, results, trained = self._open(), dict[str, Any](), set[str]()
            course = Worklist(self.runs_dir, self.max_failures)
            with manifest.recorded_command(self.folder):
                while (missing := self.settings.n_trials - len(study_state(study))) > 0 and not course.over:
                    new, earlier = self._batch(study, min(missing, self.settings.parallel), course)
                    results |= new
                    trained |= new.keys() - earlier
            self._show(study, results, trained, course)
        return list(results.values())

    def _open(self) -> "Study":
        """The study as an earlier command left it, with what it failed at or left undone to be tried again."""
        from optuna.trial import TrialState

        study = self._load()
        if not self._current(study):
            aside = next(path for n in range(1, 1000) if not (path := self.folder / f"{JOURNAL}.old-{n}").exists())
            (self.folder / JOURNAL).rename(aside)
            log.warning(
                "the study's trials are of other code, data or settings; begun anew, the old one is %s", aside.name
            )
            study = self._load()
        for trial in study.trials:
            if trial.state is TrialState.RUNNING:  # of a command that was cut off
                study.tell(trial.number, state=TrialState.FAIL)
        for trial in study_state(study):
            if trial.state is TrialState.FAIL:
                study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        if study.trials:
            log.info("the study goes on: %d of %d trials stand", len(study_state(study)), self.settings.n_trials)
        return study

    def _load(self) -> "Study":
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(self.folder / JOURNAL)))
        return optuna.create_study(
            storage=storage, study_name="sweep", direction=self.settings.towards, load_if_exists=True
        )

    def _current(self, study: "Study") -> bool:
        """Whether the last finished trial would be answered by its record, today."""
        from optuna.trial import TrialState

        told = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
        if not told:
            return True
        try:
            return reusable(self._cell(told[-1].user_attrs["overrides"], 0)) is not None
        except HarnessError:
            return False

    def _batch(self, study: "Study", size: int, course: Worklist) -> "tuple[dict[str, JobReturn], frozenset[str]]":
        """Ask for trials, run those that can work, tell the study how each went."""
        from optuna.trial import TrialState

        # Anew for each batch: then a study that was cut off proposes what it would have proposed.
        study.sampler = search_space.sampler(self.settings, self.settings.seed + len(study_state(study)))
        asked: dict[int, tuple[Trial, Cell]] = {}
        refusal = ""
        for trial in [study.ask(self.space) for _ in range(size)]:
            overrides = [*self.fixed, *(f"{key}={trial.params[key]}" for key in self.space)]
            trial.set_user_attr("overrides", overrides)
            try:
                asked[trial.number] = trial, self._cell(overrides, trial.number)
            except search_space.ObjectiveFault:
                raise
            except HarnessError as error:
                refusal = str(error).splitlines()[0]
                log.warning("trial %d cannot work: %s", trial.number, refusal)
                # Pruned, not failed: a sampler learns from it, and a second command need not try it again.
                study.tell(trial, state=TrialState.PRUNED)
        if not asked:
            _hope(study, refusal, min(HOPELESS, self.settings.n_trials))
            return {}, frozenset()
        _, begin = self.prepare([trial.user_attrs["overrides"] for trial, _ in asked.values()], min(asked))
        todo = [cell for _, cell in asked.values()]
        self._list(study, [*self._cells(study), *todo])
        results, earlier = execute.run_cells(todo, begin, self.folder, course)
        for trial, cell in asked.values():
            trial.set_user_attr("fingerprint", cell.plan.fingerprint)
            self._tell(study, trial, cell, results.get(cell.plan.fingerprint))
        return results, earlier

    def _cell(self, overrides: list[str], number: int) -> Cell:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from harness.config.messages import explain

        try:
            [cell], _ = self.prepare([overrides], number)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigFault(explain(error).removeprefix("error: ")) from error
        search_space.check_objective(self.settings.objective, cell.plan)
        if reusable(cell) is None:
            check_models([cell])
        return cell

    def _tell(self, study: "Study", trial: "Trial", cell: Cell, result: "JobReturn | None") -> None:
        from hydra.core.utils import JobStatus
        from optuna.trial import TrialState

        if result is None or result.status is JobStatus.FAILED:  # none: too many had failed to start it
            study.tell(trial, state=TrialState.FAIL)
            return
        try:
            value = search_space.value_of(self.settings.objective, result.return_value)
        except ConfigFault:
            study.tell(trial, state=TrialState.FAIL)
            raise
        study.tell(trial, value)
        log.info("trial %d: %s = %.6g: %s", trial.number, self.settings.objective, value, cell.name)

    def _show(self, study: "Study", results: "Mapping[str, JobReturn]", trained: set[str], course: Worklist) -> None:
        """The table of all trials, the best of them, and the files that hold both."""
        shown, best = list(self._cells(study)), _best(study)
        if not shown:
            raise RunFault("no trial has run; the lines above say why")
        self._list(study, shown)
        earlier = frozenset(cell.plan.fingerprint for cell in shown) - trained
        try:
            conclude(shown, results, earlier, self.folder, course)
        finally:
            if best is not None:
                params = " ".join(f"{key}={value}" for key, value in best.params.items())
                log.info(
                    "best of %d trials, run %s: %s = %.6g with %s",
                    *(
                        len(study_state(study)),
                        best.user_attrs["fingerprint"],
                        self.settings.objective,
                        best.value,
                        params,
                    ),
                )

    def _list(self, study: "Study", trials: Sequence[Cell]) -> None:
        best = _best(study)
        about = {**vars(self.settings), "direction": self.settings.towards}
        about["best"] = None if best is None else {"value": best.value, **best.user_attrs}
        manifest.keep_manifest(trials, self.folder, study=about)

    def _cells(self, study: "Study") -> Iterator[Cell]:
        """Of all trials that made a plan, from what their records keep."""
        options = None
        for trial in study_state(study):
            kept = store.read_record(self.runs_dir, trial.user_attrs.get("fingerprint", "none"))
            if kept is None:
                continue
            if options is None:
                [cell], _ = self.prepare([trial.user_attrs["overrides"]], 0)
                options = cell.options
            yield Cell(tuple(trial.user_attrs["overrides"]), plan_from_dict(kept["plan"]), options)


def study_state(study: "Study") -> "list[FrozenTrial]":
    """Trials that have ended, less those that a later one has tried again."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("again") for trial in trials}
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [trial for trial in trials if trial.state in ended and trial.number not in again]


def _best(study: "Study") -> "FrozenTrial | None":
    from optuna.trial import TrialState

    return study.best_trial if study.get_trials(states=(TrialState.COMPLETE,)) else None


def _hope(study: "Study", refusal: str, enough: int) -> None:
    """ConfigFault where every trial was refused, and there were enough of them."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    refused = sum(trial.state is TrialState.PRUNED for trial in trials)
    if refused == len(trials) and refused >= enough:
        raise ConfigFault(f"none of {refused} trials can work; the last one: {refusal}")


def open_session(
    settings: search_space.StudySettings,
    overrides: "Sequence[Override]",
    prepare: Prepare,
    composed: Any,
) -> Session:
    """The study of these overrides: the same ones, whatever their number of trials, are the same study.

    Args:
        composed: the configuration of the overrides that all trials share.
    """
    settings.check()
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigFault(
            f"hydra/sweeper=optuna needs a package that is not installed ({error}); pip install optuna"
        ) from error
    if composed.stage is not Stage.run:
        raise ConfigFault(
            f"stage={composed.stage.value} needs to know its cells, which a study chooses as it goes; leave it out, or "
            "set hydra/sweeper=basic"
        )
    searched, fixed = search_space.space(overrides)
    lines = sorted(
        line for each in overrides if not (line := str(each.input_line)).startswith(OVERRIDES_WITHOUT_EFFECT)
    )
    key = digest([lines, settings.objective, settings.towards, settings.sampler, settings.seed])
    runs_dir = Path(composed.runs_dir).expanduser().absolute()
    folder = runs_dir / "sweeps" / key
    return Session(settings, searched, fixed, prepare, folder, runs_dir, composed.sweep.max_failures)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's own notes would say everything twice."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
