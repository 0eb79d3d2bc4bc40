"""A tracked run is named by what has an effect on it."""

import pytest

from harness.report.run_names import run_name
from tests.support.runs import plan_of


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("peft=lora lora.r=4 seed=1", "lora r=4 seed=1"),
        ("peft=ia3 lora.r=4 seed=1", "ia3 seed=1"),
        ("peft=oft oft.eps=1e-4 trainer.learning_rate=0.01", "oft trainer.learning_rate=0.01"),
        ("peft=oft oft.coft=true oft.eps=1e-4", "oft coft=true eps=1e-4"),
        ("peft=lora trainer.distill_weight=0.5", "lora"),
        ("peft=lora model.path=/data/model", "lora model.path=/data/model"),
    ],
)
def test_settings_without_effect_are_not_part_of_the_name(random_qwen2, overrides, name):
    words = overrides.replace("/data/model", str(random_qwen2)).split()
    plan, _ = plan_of(f"model.path={random_qwen2}", *words)
    assert run_name(plan, overrides) == name


def test_a_run_without_overrides_is_named_by_its_method(random_qwen2):
    plan, _ = plan_of(f"model.path={random_qwen2}")
    assert [run_name(plan, name) for name in ("lora", "")] == ["lora", "lora"]
