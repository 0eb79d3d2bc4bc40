"""The trials of a study, in a journal in its sweep's folder, so that the same command resumes it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigFault
from harness.record.files import set_aside
from harness.scoring.catalog import Direction

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

JOURNAL = "study.journal"

PRUNED_BY_LOSS = "pruned"  # attribute of a trial that ran and lost; Optuna's state is also that of refused trials


def load_study(folder: Path, direction: Direction) -> "Study":
    """The study in the folder; a new one if there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    return optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)


def restart_study(folder: Path, direction: Direction) -> "Study":
    """A new study; the journal of the old one is kept under another name."""
    aside = set_aside(folder / JOURNAL, "old")
    log.warning(
        "the study's trials were run by other code, data or settings: starting again; the old journal is %s", aside.name
    )
    return load_study(folder, direction)


def requeue_unfinished(study: "Study", pruning: bool = False) -> None:
    """Let the study retry trials that failed, or that a command left behind when it was killed.

    Args:
        pruning: the command prunes too; one that does not trains what was pruned.
    """
    from optuna.trial import TrialState

    for trial in study.trials:
        if trial.state is TrialState.RUNNING:  # of a command that was killed
            study.tell(trial.number, state=TrialState.FAIL)
    for trial in ended_trials(study):
        lost = trial.state is TrialState.PRUNED and PRUNED_BY_LOSS in trial.user_attrs and not pruning
        if trial.state is TrialState.FAIL or lost:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def ended_trials(study: "Study") -> "list[FrozenTrial]":
    """Trials that have ended, without those that a later trial has retried."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("again") for trial in trials}
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [trial for trial in trials if trial.state in ended and trial.number not in retried]


def completed_trials(study: "Study") -> "list[FrozenTrial]":
    """Trials that have a value."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best_trial(study: "Study") -> "FrozenTrial | None":
    """The trial with the best value; None if no trial has one."""
    return study.best_trial if completed_trials(study) else None


def refuse_hopeless(study: "Study", last_refusal: str, enough: int) -> None:
    """Raise ConfigFault if every trial was refused, and there were at least ``enough`` of them."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    refused = sum(trial.state is TrialState.PRUNED and PRUNED_BY_LOSS not in trial.user_attrs for trial in trials)
    if refused == len(trials) and refused >= enough:
        raise ConfigFault(f"none of {refused} trials can work; the last one: {last_refusal}")


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without Optuna's own log lines, which would repeat ours."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
