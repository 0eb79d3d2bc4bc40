"""Studies: Optuna proposes cells, the sweep's launcher runs them, their scores decide what is proposed next.

The trials are kept in a journal in the sweep's folder, so that the same command resumes the study. A trial is a plan
like those of a grid: if it was run before, by this study or by another command, its record is reused.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Prune, Stage
from harness.errors import ConfigFault, HarnessError, RunFault
from harness.plan.spec import digest, plan_from_dict
from harness.record import locks, store
from harness.record.redact import redactor
from harness.sweep import execute, journal, manifest, search_space
from harness.sweep.cells import OVERRIDES_WITHOUT_EFFECT, Cell
from harness.sweep.grid import check_models
from harness.sweep.halving import Entrant, Rule, Standing
from harness.sweep.journal import PRUNED_BY_LOSS
from harness.sweep.outcome import Outcome, Status
from harness.sweep.reuse import reusable
from harness.sweep.rounds import Judge, entrant_of, group_of
from harness.sweep.settled_threads import settle_threads
from harness.sweep.study_pruning import check_rule, stand_in_study
from harness.sweep.summary import conclude
from harness.sweep.worklist import Dispatch, Worklist

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

# The cells of these overrides, numbered from the second argument on, and what runs some of them.
Prepare = Callable[[Sequence[Sequence[str]], int], tuple[list[Cell], Dispatch]]

HOPELESS = 5  # trials refused before any has run: then the command is wrong, not the proposals


@dataclass
class Session:
    """One command's work on a study."""

    settings: search_space.StudySettings
    space: "dict[str, BaseDistribution]"  # choices with secrets redacted, as the journal keeps them
    plain: dict[str, dict[str, str]]  # by key, the text of each choice that was redacted
    fixed: list[str]
    prepare: Prepare
    folder: Path
    runs_dir: Path
    max_failures: int | None
    max_hours: float | None
    prune: Prune

    def run(self) -> list[Outcome]:
        """Run trials until there are ``n_trials``; show all of them, and the best.

        Raises:
            ConfigFault: no trial can work, or the plans do not measure the objective, or it is of the test split.
            RunFault: some trial failed; all others have run.
        """
        lock = locks.take_lock(self.folder)
        if lock is None:
            owner = locks.describe(locks.holder(self.folder) or {})
            raise RunFault(
                f"{owner} is running this study in {self.folder}; wait, or give hydra.sweeper.seed another value"
            )
        with lock, journal.quiet_optuna():
            study, outcomes, run_now = self._open(), dict[str, Outcome](), set[str]()
            settle_threads(self.folder)
            worklist = Worklist(self.runs_dir, self.max_failures, self.max_hours)
            with manifest.recorded_command(self.folder):
                while (missing := self._missing(study)) > 0 and not worklist.over:
                    new, earlier = self._run_batch(study, min(missing, self.settings.parallel), worklist)
                    outcomes |= new
                    run_now |= new.keys() - earlier
            self._show(study, outcomes, run_now, worklist)
        return list(outcomes.values())

    @property
    def pruning(self) -> bool:
        """Whether trials that lose end early."""
        return self.prune is not Prune.none

    def _missing(self, study: "Study") -> int:
        return self.settings.n_trials - len(journal.ended_trials(study))

    def _open(self) -> "Study":
        """The study as an earlier command left it; trials that failed or were cut off are queued again."""
        study = journal.load_study(self.folder, self.settings.towards)
        if not self._is_current(study):
            study = journal.restart_study(self.folder, self.settings.towards)
        journal.requeue_unfinished(study, pruning=self.pruning)
        if study.trials:
            ended = len(journal.ended_trials(study))
            log.info("resuming the study: %d of %d trials have ended", ended, self.settings.n_trials)
        return study

    def _is_current(self, study: "Study") -> bool:
        """Whether the record of the last completed trial would be reused today."""
        completed = journal.completed_trials(study)
        if not completed:
            return True
        try:
            return reusable(self._checked_cell(self._overrides(completed[-1]), 0)) is not None
        except HarnessError:
            return False

    def _run_batch(self, study: "Study", size: int, worklist: Worklist) -> tuple[dict[str, Outcome], frozenset[str]]:
        """Ask for trials, run those that can work, and tell the study the results."""
        # A new sampler for each batch: a study that was cut off then proposes what it would have proposed.
        study.sampler = search_space.sampler(self.settings, self.settings.seed + len(journal.ended_trials(study)))
        proposed = self._propose(study, size)
        if not proposed:
            return {}, frozenset()
        _, dispatch = self.prepare(
            [self._overrides(trial) for trial, _ in proposed], min(trial.number for trial, _ in proposed)
        )
        cells = [cell for _, cell in proposed]
        if self.pruning:
            check_rule(cells[0].options.halving)
        outcomes, earlier = execute.run_cells(cells, dispatch, self.folder, worklist, self._judge(study))
        for trial, cell in proposed:
            trial.set_user_attr("fingerprint", cell.plan.fingerprint)
            self._tell(study, trial, cell, outcomes.get(cell.plan.fingerprint))
        return outcomes, earlier

    def _judge(self, study: "Study") -> Judge:
        """Optuna's pruner, which compares the runs of a group with those of earlier trials."""
        past = dict[str, list[Entrant]]()
        for cell in self._cells(study) if self.pruning else ():
            past.setdefault(group_of(cell), []).append(entrant_of(cell))

        def judge(group: Sequence[Cell], entrants: Sequence[Entrant], rule: Rule) -> Standing:
            present = {each.run for each in entrants}
            earlier = [each for each in past.get(group_of(group[0]), ()) if each.run not in present]
            return stand_in_study(earlier, entrants, rule)

        return judge

    def _propose(self, study: "Study", size: int) -> "list[tuple[Trial, Cell]]":
        """Of ``size`` new trials those that can work, with their cells; the others are pruned."""
        from optuna.trial import TrialState

        proposed, refusal = list[tuple["Trial", Cell]](), ""
        for trial in [study.ask(self.space) for _ in range(size)]:
            overrides = self._overrides(trial)
            trial.set_user_attr("overrides", list(map(redactor(), overrides)))  # for readers of the journal
            try:
                proposed.append((trial, self._checked_cell(overrides, trial.number)))
            except search_space.ObjectiveFault:
                raise
            except HarnessError as error:
                refusal = str(error).splitlines()[0]
                log.warning("trial %d cannot work: %s", trial.number, refusal)
                # Pruned, not failed: a sampler learns from it, and a second command does not retry it.
                study.tell(trial, state=TrialState.PRUNED)
        if not proposed:
            journal.refuse_hopeless(study, refusal, min(HOPELESS, self.settings.n_trials))
        return proposed

    def _overrides(self, trial: "Trial | FrozenTrial") -> list[str]:
        """The overrides of a trial, which the journal has only without their secrets."""
        chosen = {key: self.plain.get(key, {}).get(trial.params[key], trial.params[key]) for key in self.space}
        return [*self.fixed, *(f"{key}={value}" for key, value in chosen.items())]

    def _checked_cell(self, overrides: list[str], number: int) -> Cell:
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

    def _tell(self, study: "Study", trial: "Trial", cell: Cell, outcome: Outcome | None) -> None:
        from optuna.trial import TrialState

        if outcome is not None and outcome.status is Status.pruned:
            trial.set_user_attr(PRUNED_BY_LOSS, outcome.message)
            if self.settings.objective == search_space.VALIDATION_LOSS:  # what a sampler learns from
                for number, loss in enumerate(entrant_of(cell).losses, start=1):
                    trial.report(loss, step=number)
            study.tell(trial, state=TrialState.PRUNED)
            return
        if outcome is None or outcome.record is None:  # None: too many runs had failed to start it
            study.tell(trial, state=TrialState.FAIL)
            return
        try:
            value = search_space.value_of(self.settings.objective, outcome.record)
        except ConfigFault:
            study.tell(trial, state=TrialState.FAIL)
            raise
        study.tell(trial, value)
        log.info("trial %d: %s = %.6g: %s", trial.number, self.settings.objective, value, cell.name)

    def _show(self, study: "Study", outcomes: Mapping[str, Outcome], run_now: set[str], worklist: Worklist) -> None:
        """Print the table of all trials and the best of them; write both into the sweep's folder."""
        shown, best = list(self._cells(study)), journal.best_trial(study)
        if not shown:
            raise RunFault("no trial has run; the lines above say why")
        about: dict[str, Any] = {**vars(self.settings), "direction": self.settings.towards}
        about["best"] = None if best is None else {"value": best.value, **best.user_attrs}
        manifest.keep_manifest(shown, self.folder, study=about)
        earlier = frozenset(cell.plan.fingerprint for cell in shown) - run_now
        try:
            conclude(shown, outcomes, earlier, self.folder, worklist)
        finally:
            if best is not None:
                log.info(
                    "best of %d trials, run %s: %s = %.6g with %s",
                    len(journal.ended_trials(study)),
                    best.user_attrs["fingerprint"],
                    self.settings.objective,
                    best.value,
                    " ".join(f"{key}={value}" for key, value in best.params.items()),
                )

    def _cells(self, study: "Study") -> Iterator[Cell]:
        """The cells of all trials that have a record, with the plan in it."""
        options = None
        for trial in journal.ended_trials(study):
            record = store.read_record(self.runs_dir, trial.user_attrs.get("fingerprint", "none"))
            if record is None:
                continue
            overrides = self._overrides(trial)
            if options is None:
                [cell], _ = self.prepare([overrides], 0)
                options = cell.options
            yield Cell(tuple(overrides), plan_from_dict(record["plan"], record["fingerprint"]), options)


def open_session(
    settings: search_space.StudySettings, overrides: "Sequence[Override]", prepare: Prepare, composed: Any
) -> Session:
    """The study of these overrides. Equal overrides make the same study, whatever the number of trials.

    Args:
        composed: the configuration of the overrides that all trials share.

    Raises:
        ConfigFault: a setting makes no sense, Optuna is not installed, or there is nothing to search.
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
            f"stage={composed.stage.value} must know all cells, but a study chooses its cells as it runs; leave out "
            "stage, or set hydra/sweeper=basic"
        )
    searched, fixed = search_space.space(overrides)
    searched, plain = search_space.without_secrets(searched)
    lines = sorted(
        line for each in overrides if not (line := str(each.input_line)).startswith(OVERRIDES_WITHOUT_EFFECT)
    )
    key = digest([lines, settings.objective, settings.towards, settings.sampler, settings.seed])
    runs_dir = Path(composed.runs_dir).expanduser().absolute()
    return Session(
        settings,
        searched,
        plain,
        fixed,
        prepare,
        runs_dir / "sweeps" / key,
        runs_dir,
        composed.sweep.max_failures,
        composed.sweep.max_hours,
        composed.sweep.prune,
    )
