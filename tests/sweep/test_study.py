"""Studies: what a trial is worth, how a study resumes. Optuna is real; training is not."""

import logging

import pytest

pytest.importorskip("optuna")

from harness.errors import ConfigFault, RunFault
from harness.record import locks, provenance
from harness.sweep import execute, study
from harness.sweep.journal import JOURNAL
from harness.sweep.study import open_session
from tests.support.configs import compose
from tests.support.studies import StudyCommand, parsed, settings, trials_of


@pytest.fixture
def command(tmp_path, weightless, monkeypatch) -> StudyCommand:
    for module in (execute, study):
        monkeypatch.setattr(module, "check_models", lambda cells: None)
    return StudyCommand(tmp_path / "runs", weightless)


@pytest.mark.parametrize(
    ("override", "objective", "remedy"),
    [
        ("scoring.split=test", "scores.after.exact_match", r"scoring\.split=validation"),
        ("trainer={evaluations:0,keep_best:false}", "validation_loss", r"trainer\.evaluations"),
    ],
)
def test_objective_that_would_select_by_the_test_split_or_is_not_taken_is_refused_untrained(
    command, override, objective, remedy
):
    with pytest.raises(ConfigFault, match=remedy):
        command.study("lora.r=4,8", override, objective=objective).run()
    assert command.ran == []


def test_best_trial_is_named_with_its_overrides(command, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("harness"), "propagate", True)
    with caplog.at_level("INFO", logger="harness"):
        command.study().run()
    best = min(command.ran, key=lambda r: abs(20 - r))
    assert f"validation_loss = {abs(20 - best)} with lora.r={best}" in caplog.text
    assert len(command.ran) == 4


def test_study_that_is_cut_off_resumes_as_if_it_had_not_been(command, tmp_path, weightless):
    command.study(parallel=1).run()
    whole = command.ran
    other = StudyCommand(tmp_path / "others", weightless)
    other.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        other.study(parallel=1).run()
    other.stop_after = 1000
    session = other.study(parallel=1)
    session.run()
    assert other.ran == whole
    assert [state for state, _ in trials_of(session)] == ["COMPLETE"] * 4


def test_more_trials_resume_the_same_study(command):
    command.study(n_trials=2).run()
    command.study(n_trials=3).run()
    assert len(command.ran) == 3


def test_repeated_trial_reuses_its_record(command):
    session = command.study("lora.r=4,8", n_trials=6)
    session.run()
    assert sorted(command.ran) == [4, 8]
    assert len(trials_of(session)) == 6


def test_the_same_command_trains_nothing_again_even_without_its_journal(command):
    session = command.study("lora.r=4,8")
    session.run()
    command.study("lora.r=4,8").run()
    (session.folder / JOURNAL).unlink()
    command.study("lora.r=4,8").run()
    assert sorted(command.ran) == [4, 8]
    assert len(trials_of(session)) == 4


def test_study_ends_when_too_many_trials_have_failed(command):
    command.failing, command.options = set(range(1, 65)), ("sweep.max_failures=1",)
    with pytest.raises(RunFault, match=r"more runs failed \(2\) than sweep\.max_failures=1"):
        command.study(n_trials=9).run()
    assert len(command.ran) == 2


def test_failed_trial_is_retried_by_the_next_command(command):
    command.failing = {4}
    session = command.study("lora.r=4,8", n_trials=6)
    with pytest.raises(RunFault, match="1 of 2 runs failed"):
        session.run()
    assert {(state, params["lora.r"]) for state, params in trials_of(session)} == {("FAIL", "4"), ("COMPLETE", "8")}
    command.failing = set()
    session.run()
    assert {state for state, _ in trials_of(session)} == {"COMPLETE"}
    assert len(trials_of(session)) == 6


def test_trial_that_cannot_work_does_not_stop_a_study(command):
    session = command.study("trainer.epochs=3,-1", n_trials=8)
    session.run()
    assert {(state, params["trainer.epochs"]) for state, params in trials_of(session)} == {
        *(("COMPLETE", "3"), ("PRUNED", "-1"))
    }


def test_study_of_which_no_trial_can_work_is_a_fault(command):
    with pytest.raises(ConfigFault, match=r"none of \d+ trials can work.*epochs"):
        command.study("trainer.epochs=-2,-1", n_trials=50).run()
    assert command.ran == []


@pytest.mark.parametrize("reuse", ["same_code", "any"])
def test_trials_of_other_code_count_only_with_reuse_any(command, monkeypatch, reuse, capsys):
    session = command.study()
    session.run()
    ran, made_by = len(command.ran), provenance.code_version()
    monkeypatch.setattr(provenance, "code_version", lambda: "0123456789abcdef")
    command.options = (f"sweep.reuse={reuse}",)
    capsys.readouterr()
    command.study().run()
    assert (len(command.ran) == ran) == (reuse == "any")
    assert (session.folder / f"{JOURNAL}.old-1").exists() == (reuse == "same_code")
    assert (f"made by code {made_by}" in capsys.readouterr().out) == (reuse == "any")


def test_study_that_another_process_runs_is_left_alone(command):
    session = command.study()
    with locks.take_lock(session.folder), pytest.raises(RunFault, match="is running this study"):
        session.run()


def test_stage_plan_needs_a_grid(command):
    with pytest.raises(ConfigFault, match="stage=plan"):
        open_session(settings(), parsed("lora.r=2,4"), command.prepare, compose("stage=plan"))


def test_trials_that_lose_are_pruned_within_their_study_and_trained_without_pruning(command):
    """The loss is the distance of lora.r from 20, at every evaluation."""
    halving = ("sweep.prune=halving", "trainer.evaluations=8", "trainer.max_steps=80")
    command.options = halving
    session = command.study("lora.r=20,21,60,61", n_trials=4, sampler="random", parallel=1, seed=3)
    session.run()
    states = {params["lora.r"]: state for state, params in trials_of(session)}
    assert "PRUNED" in states.values()
    assert "COMPLETE" in states.values()
    ran = len(command.ran)
    command.study("lora.r=20,21,60,61", n_trials=4, sampler="random", parallel=1, seed=3).run()
    assert len(command.ran) == ran
    command.options = ("trainer.evaluations=8", "trainer.max_steps=80")
    session = command.study("lora.r=20,21,60,61", n_trials=4, sampler="random", parallel=1, seed=3)
    session.run()
    assert {state for state, _ in trials_of(session)} == {"COMPLETE"}


def test_a_rule_that_optuna_lacks_ends_the_study_before_anything_runs(command):
    command.options = ("sweep.prune=halving", "trainer.evaluations=8", "sweep.halving.margin=0.1")
    with pytest.raises(ConfigFault, match=r"sweep.halving.margin=0.1 is for grids"):
        command.study().run()
    assert command.ran == []
