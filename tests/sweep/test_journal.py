"""The journal of a study: what is retried, what is best, when to give up."""

import pytest

pytest.importorskip("optuna")

from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from harness.errors import ConfigFault
from harness.sweep import journal

SPACE = {"lora.r": IntDistribution(1, 64)}


@pytest.fixture
def study(tmp_path):
    with journal.quiet_optuna():
        yield journal.load_study(tmp_path, "minimize")


def test_failed_and_abandoned_trials_are_retried_once(study, tmp_path):
    study.tell(study.ask(SPACE), 1.0)
    failed = study.ask(SPACE)
    study.tell(failed, state=TrialState.FAIL)
    abandoned = study.ask(SPACE)
    study = journal.load_study(tmp_path, "minimize")
    journal.requeue_unfinished(study)
    retries = [study.ask(SPACE) for _ in range(2)]
    assert [trial.params for trial in retries] == [failed.params, abandoned.params]
    for trial in retries:
        study.tell(trial, 2.0)
    assert [trial.state for trial in journal.ended_trials(study)] == [TrialState.COMPLETE] * 3
    assert journal.best_trial(study).value == 1.0


def test_study_without_a_result_has_no_best_trial(study):
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    assert journal.best_trial(study) is None


def test_study_is_hopeless_only_when_all_of_enough_trials_were_refused(study):
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    journal.refuse_hopeless(study, "lora.r=-1", enough=2)
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    with pytest.raises(ConfigFault, match=r"none of 2 trials can work; the last one: lora\.r=-1"):
        journal.refuse_hopeless(study, "lora.r=-1", enough=2)
    study.tell(study.ask(SPACE), 1.0)
    journal.refuse_hopeless(study, "lora.r=-1", enough=2)


def test_restarted_study_keeps_the_old_journal(study, tmp_path):
    study.tell(study.ask(SPACE), 1.0)
    assert journal.restart_study(tmp_path, "minimize").trials == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [journal.JOURNAL, f"{journal.JOURNAL}.old-1"]
