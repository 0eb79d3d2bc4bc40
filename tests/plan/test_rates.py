"""Where the learning rate of a plan comes from."""

import json

import pytest

from harness.errors import ModelFault
from harness.plan.read import read_config
from tests.support.configs import compose


def read(*overrides):
    plan, options = read_config(compose(*overrides))
    return plan.learning_rate, options.rate_rule


def test_the_embedded_default_is_the_calibrated_point_of_its_width():
    value, rule = read("peft=lora")
    assert value == 5e-3
    assert rule
    assert "width 160" in rule


@pytest.mark.parametrize(
    "override", ["trainer.learning_rate=1e-3", "lora.learning_rate=1e-3"], ids=["trainer", "sheet"]
)
def test_an_explicit_rate_wins(override):
    assert read("peft=lora", override) == (1e-3, None)


def test_the_trainers_rate_wins_over_the_sheets():
    assert read("peft=lora", "lora.learning_rate=2e-3", "trainer.learning_rate=1e-3") == (1e-3, None)


def test_a_wider_model_gets_a_lower_rate_without_its_weights():
    value, rule = read("peft=ia3", "model=smollm2_135m", "stage=plan")
    assert value < 0.2  # the embedded model's
    assert "width 576, llama" in str(rule)


def test_batch_and_steps_move_the_rate():
    assert read("trainer.batch_size=4")[0] == pytest.approx(2.5e-3)
    assert read("trainer.batch_size=4", "trainer.gradient_accumulation_steps=4")[0] == pytest.approx(5e-3)
    assert read("trainer.max_steps=10")[0] == pytest.approx(7.5e-3)


def test_a_model_without_a_width_needs_an_explicit_rate(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "odd"}))
    odd = ("model=hub", "model.source=folder", f"model.path={tmp_path}", "data=medicine")
    with pytest.raises(ModelFault, match=r"set trainer\.learning_rate"):
        read(*odd)
    assert read(*odd, "trainer.learning_rate=1e-3") == (1e-3, None)
