"""Constraints that sheets declare beside their fields: each refuses what it should and passes what it may."""

from dataclasses import dataclass
from typing import Any

import pytest
from omegaconf import OmegaConf

from harness.methods import fields
from harness.methods.registry import METHODS


@dataclass(kw_only=True)
class Example(fields.Placed):
    rank: int | None = fields.count()
    decay: float = fields.minimum(0)
    alpha: float = fields.positive()
    dropout: float = fields.share()
    beta: float = fields.between(0, 1)
    bias: Any = fields.choice("none", "all", True)
    ranks: dict[str, int] = fields.pattern()


GOOD = {
    "learning_rate": 1e-3, "target_modules": ["q_proj"], "exclude_modules": None, "modules_to_save": None,
    "layers_to_transform": None, "rank": 4, "decay": 0.0, "alpha": 1.0, "dropout": 0.0,
    "beta": 0.5, "bias": "none", "ranks": {"q_.*": 4},
}  # fmt: skip


def faults(**changes: Any) -> list[str]:
    return list(fields.field_faults("example", Example(**GOOD | changes)))


def test_good_values_pass():
    assert faults() == []
    assert faults(rank=None, bias=True, target_modules="all-linear") == []


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.0},
        {"rank": 0},
        {"decay": -1.0},
        {"alpha": 0.0},
        {"alpha": float("inf")},
        {"dropout": 1.0},
        {"beta": 1.0},
        {"bias": "some"},
        {"bias": 1},  # equal to True in Python
        {"target_modules": []},
        {"target_modules": [3]},
        {"target_modules": "("},
        {"exclude_modules": ""},
        {"layers_to_transform": []},
        {"layers_to_transform": [-1]},
        {"layers_to_transform": [0], "target_modules": "q_.*"},
        {"ranks": {"(": 4}},
        {"ranks": {"q": 0}},
    ],
)
def test_each_constraint_names_key_and_value(change):
    key = next(iter(change))
    [message] = faults(**change)
    assert message.startswith(f"example.{key}")


def test_layers_go_with_all_linear_except_for_lora():
    assert faults(layers_to_transform=[0], target_modules="all-linear") == []
    sheet = Example(**GOOD | {"layers_to_transform": [0], "target_modules": "all-linear"})
    assert list(fields.field_faults("lora", sheet))


@pytest.mark.parametrize("method", METHODS)
def test_sheets_take_their_types_from_omegaconf_as_dataclasses_do(method):
    node = OmegaConf.structured(METHODS[method].sheet)
    assert next(iter(node.keys())) == "learning_rate"
    assert all(OmegaConf.is_missing(node, key) for key in node)
