"""Studies: what is searched, what a trial is worth, how a study goes on. Optuna is real; training is not."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.support.configs import CONF, compose
from tests.support.stored_records import fail, finish, started

pytest.importorskip("optuna")

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.errors import ConfigFault, RunFault
from harness.plan.read import read_config
from harness.record.run_record import Training
from harness.sweep import cells as sweep_cells
from harness.sweep import grid, search_space
from harness.sweep.cells import Cell
from harness.sweep.study import JOURNAL, Session, open_session, study_state

SETTINGS = {
    "objective": "validation_loss", "direction": None, "n_trials": 4, "parallel": 2, "sampler": "tpe", "seed": 0,
}  # fmt: skip


def settings(**changes) -> search_space.StudySettings:
    return search_space.StudySettings(**{**SETTINGS, **changes})


def parsed(*overrides: str) -> list:
    return OverridesParser.create().parse_overrides(list(overrides))


# --- the space --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("lora.r=4,8,16", CategoricalDistribution(["4", "8", "16"])),
        ("lora.r=choice(4,8)", CategoricalDistribution(["4", "8"])),
        ("lora.r=interval(2,32)", IntDistribution(2, 32)),
        ("lora.r=tag(log,interval(2,32))", IntDistribution(2, 32, log=True)),
        ("lora.r=int(interval(2,32))", IntDistribution(2, 32)),
        ("trainer.max_steps=interval(2,32)", IntDistribution(2, 32)),
        ("lora.r=range(2,10,4)", IntDistribution(2, 6, step=4)),  # Hydra's ranges leave out their end
        ("trainer.learning_rate=interval(0.1,1)", FloatDistribution(0.1, 1.0)),
        ("trainer.learning_rate=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("lora.target_modules=[a,b],[c]", CategoricalDistribution(["[a,b]", "[c]"])),
    ],
)
def test_overrides_of_several_values_are_the_space(override, distribution):
    searched, fixed = search_space.space(parsed(override, "seed=3"))
    assert searched == {override.split("=")[0]: distribution}
    assert fixed == ["seed=3"]


def test_nothing_to_search_is_a_fault():
    with pytest.raises(ConfigFault, match="nothing to search"):
        search_space.space(parsed("seed=3"))


def test_interval_that_cannot_be_is_a_fault_with_its_override():
    with pytest.raises(ConfigFault, match=r"lora\.r=tag"):
        search_space.space(parsed("lora.r=tag(log,interval(0,8))"))


# --- settings and objective -------------------------------------------------------------------------------


def test_faults_of_settings_are_listed_together():
    with pytest.raises(ConfigFault) as caught:
        settings(n_trials=0, parallel="x", objective="loss", direction="down", sampler="best").check()
    assert [line.split("=")[0].rpartition(".")[2] for line in str(caught.value).splitlines()] == [
        *("n_trials", "parallel", "objective", "direction", "sampler")
    ]


@pytest.mark.parametrize(
    ("objective", "direction", "towards"),
    [
        ("validation_loss", None, "minimize"),
        ("scores.after.perplexity", None, "minimize"),
        ("scores.after.exact_match", None, "maximize"),
        ("scores.after.exact_match", "minimize", "minimize"),
    ],
)
def test_losses_go_down_and_scores_up_unless_told_otherwise(objective, direction, towards):
    assert settings(objective=objective, direction=direction).towards == towards


def kept(**values) -> dict:
    return {
        "training": {"validation": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}], "best_step": None},
        "scores": {"after": {"exact_match": 40.0}},
    } | values


def test_objective_is_read_from_the_record():
    assert search_space.value_of("validation_loss", kept()) == 2.5
    assert search_space.value_of("scores.after.exact_match", kept()) == 40.0


def test_objective_that_no_record_has_names_those_it_has():
    with pytest.raises(ConfigFault, match="exact_match"):
        search_space.value_of("scores.after.blue", kept())


@pytest.mark.parametrize(
    ("override", "objective", "remedy"),
    [
        ("scoring.split=test", "scores.after.exact_match", r"scoring\.split=validation"),
        ("trainer={evaluations:0,keep_best:false}", "validation_loss", r"trainer\.evaluations"),
    ],
)
def test_objective_that_would_select_by_the_test_split_or_is_not_taken_is_refused_untrained(
    launcher, override, objective, remedy
):
    with pytest.raises(ConfigFault, match=remedy):
        launcher.study("lora.r=4,8", override, objective=objective).run()
    assert launcher.ran == []


def test_preset_names_every_setting():
    preset = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "sweeper" / "optuna.yaml"))
    assert set(preset) - {"_target_", "params"} == set(SETTINGS)


# --- a study ----------------------------------------------------------------------------------------------


read = cache(lambda *overrides: read_config(compose(*overrides)))  # composing takes a third of a second


class Launcher:
    """Makes real plans and records; in place of training, the loss is the distance of lora.r from 20."""

    def __init__(self, runs_dir: Path, model: Path, monkeypatch) -> None:
        self.runs_dir, self.model = runs_dir, model
        self.ran: list[int] = []
        self.failing: set[int] = set()
        self.stop_after = 1000
        self.options: tuple[str, ...] = ()
        monkeypatch.setattr(grid, "check_models", lambda cells: None)
        monkeypatch.setattr(sweep_cells, "_whole", lambda cell, found: True)

    def prepare(self, jobs, first):
        made = []
        for overrides in jobs:
            plan_made, options = read(*overrides, f"model.path={self.model}")
            made.append(Cell(tuple(overrides), plan_made, replace(options, runs_dir=self.runs_dir)))
        return made, self.begin

    def begin(self, todo, folder, course):
        for cell in todo:
            if course.over:
                return
            r = cell.plan.settings["r"]
            if len(self.ran) >= self.stop_after:
                raise KeyboardInterrupt
            self.ran.append(r)
            record = started(cell)
            if r in self.failing:
                fail(self.runs_dir, record, RunFault("no"))
                yield cell, JobReturn(cell.overrides, status=JobStatus.FAILED, _return_value=RunFault("no"))
                continue
            record.training = Training(validation=[{"step": 1, "loss": abs(20.0 - r)}], best_step=None)
            fields = finish(self.runs_dir, record)
            yield cell, JobReturn(cell.overrides, status=JobStatus.COMPLETED, _return_value=fields)

    def study(self, *overrides: str, **changes) -> Session:
        composed = compose(f"runs_dir={self.runs_dir}", *self.options)
        given = settings(**{"sampler": "random", **changes})
        return open_session(given, parsed(*(overrides or ("lora.r=interval(1,64)",))), self.prepare, composed)


@pytest.fixture
def launcher(tmp_path, weightless, monkeypatch) -> Launcher:
    return Launcher(tmp_path / "runs", weightless, monkeypatch)


def values(session: Session) -> list:
    return [(trial.state.name, trial.params) for trial in study_state(session._load())]


def test_best_trial_is_named_with_its_overrides(launcher, caplog, monkeypatch):
    import logging

    monkeypatch.setattr(logging.getLogger("harness"), "propagate", True)
    with caplog.at_level("INFO", logger="harness"):
        launcher.study().run()
    best = min(launcher.ran, key=lambda r: abs(20 - r))
    assert f"validation_loss = {abs(20 - best)} with lora.r={best}" in caplog.text
    assert len(launcher.ran) == 4


def test_study_that_is_cut_off_goes_on_as_if_it_had_not_been(launcher, tmp_path, weightless, monkeypatch):
    launcher.study(parallel=1).run()
    whole = launcher.ran
    other = Launcher(tmp_path / "others", weightless, monkeypatch)
    other.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        other.study(parallel=1).run()
    other.stop_after = 1000
    session = other.study(parallel=1)
    session.run()
    assert other.ran == whole
    assert [state for state, _ in values(session)] == ["COMPLETE"] * 4


def test_more_trials_go_on_with_the_same_study(launcher):
    launcher.study(n_trials=2).run()
    launcher.study(n_trials=3).run()
    assert len(launcher.ran) == 3


def test_repeated_trial_gives_its_record_again(launcher):
    session = launcher.study("lora.r=4,8", n_trials=6)
    session.run()
    assert sorted(launcher.ran) == [4, 8]
    assert len(values(session)) == 6


def test_the_same_command_trains_nothing_again_even_without_its_journal(launcher):
    session = launcher.study("lora.r=4,8")
    session.run()
    launcher.study("lora.r=4,8").run()
    (session.folder / JOURNAL).unlink()
    launcher.study("lora.r=4,8").run()
    assert sorted(launcher.ran) == [4, 8]
    assert len(values(session)) == 4


def test_study_ends_where_too_many_trials_have_failed(launcher):
    launcher.failing, launcher.options = set(range(1, 65)), ("sweep.max_failures=1",)
    with pytest.raises(RunFault, match=r"more runs failed \(2\) than sweep\.max_failures=1"):
        launcher.study(n_trials=9).run()
    assert len(launcher.ran) == 2


def test_failed_trial_is_told_and_tried_again_by_the_next_command(launcher):
    launcher.failing = {4}
    session = launcher.study("lora.r=4,8", n_trials=6)
    with pytest.raises(RunFault, match="1 of 2 runs failed"):
        session.run()
    assert {(state, params["lora.r"]) for state, params in values(session)} == {("FAIL", "4"), ("COMPLETE", "8")}
    launcher.failing = set()
    session.run()
    assert {state for state, _ in values(session)} == {"COMPLETE"}
    assert len(values(session)) == 6


def test_trial_that_cannot_work_does_not_stop_a_study(launcher):
    session = launcher.study("trainer.epochs=3,-1", n_trials=8)
    session.run()
    assert {(state, params["trainer.epochs"]) for state, params in values(session)} == {
        *(("COMPLETE", "3"), ("PRUNED", "-1"))
    }


def test_study_of_which_no_trial_can_work_is_a_fault(launcher):
    with pytest.raises(ConfigFault, match=r"none of \d+ trials can work.*epochs"):
        launcher.study("trainer.epochs=-2,-1", n_trials=50).run()
    assert launcher.ran == []


def test_trials_of_other_code_are_not_mixed_with_new_ones(launcher, monkeypatch):
    from harness.record import provenance

    session = launcher.study()
    session.run()
    monkeypatch.setattr(provenance, "code_version", lambda: "0123456789abcdef")
    session.run()
    assert len(launcher.ran) == 8
    assert (session.folder / "study.journal.old-1").exists()


def test_study_that_another_process_works_on_is_left_alone(launcher):
    from harness.record import locks

    session = launcher.study()
    with locks.take_lock(session.folder), pytest.raises(RunFault, match="works on this study"):
        session.run()


def test_stage_plan_needs_a_grid(launcher):
    with pytest.raises(ConfigFault, match="stage=plan"):
        open_session(settings(), parsed("lora.r=2,4"), launcher.prepare, compose("stage=plan"))
