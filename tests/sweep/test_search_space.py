"""The search space in Hydra's overrides, a study's settings, and the objective in a record."""

import pytest

pytest.importorskip("optuna")

from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.errors import ConfigFault
from harness.sweep import search_space
from tests.support.configs import CONF
from tests.support.studies import SETTINGS, parsed, settings


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
def test_losses_go_down_and_scores_up_by_default(objective, direction, towards):
    assert settings(objective=objective, direction=direction).towards == towards


def record(**values) -> dict:
    return {
        "training": {"validation": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}], "best_step": None},
        "scores": {"after": {"exact_match": 40.0}},
    } | values


def test_objective_is_read_from_the_record():
    assert search_space.value_of("validation_loss", record()) == 2.5
    assert search_space.value_of("scores.after.exact_match", record()) == 40.0


def test_objective_that_no_record_has_names_those_it_has():
    with pytest.raises(ConfigFault, match="exact_match"):
        search_space.value_of("scores.after.blue", record())


def test_preset_names_every_setting():
    preset = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "sweeper" / "optuna.yaml"))
    assert set(preset) - {"_target_", "params"} == set(SETTINGS)
