"""Block sizes that must divide the layers' dimensions."""

from __future__ import annotations

import pytest

from harness.adapters.attach import inferred
from harness.adapters.block_sizes import RULES
from harness.errors import ModelFault
from tests.support.method_cases import (
    build,
    parts,
)


@pytest.mark.parametrize("kind", ["OFT", "BOFT", "C3A", "VBLORA", "ROAD"])
def test_an_open_size_becomes_the_largest_that_fits_and_is_reported(kind):
    rule = RULES[kind]
    model = build(kind.lower(), "qwen2")  # dimensions 32, 16 and 48
    common = {"input": 16, "output": 16}[rule.sides[0]]
    expected = min(rule.at_most, common)
    _, settings, _ = parts(kind.lower())
    assert inferred(model, settings)[rule.field] == expected


@pytest.mark.parametrize("kind", ["OFT", "BOFT", "C3A", "VBLORA", "ROAD"])
def test_a_size_that_does_not_fit_is_refused_with_those_that_do(kind):
    rule = RULES[kind]
    with pytest.raises(ModelFault) as caught:
        build(kind.lower(), "qwen2", **{rule.field: 10})
    message = str(caught.value)
    assert f"{kind.lower()}.{rule.field}=10" in message
    assert "of model.layers.0" in message
    assert "8, 16" in message


def test_a_number_of_blocks_is_checked_like_a_size():
    with pytest.raises(ModelFault, match=r"oft\.r=7 does not divide"):
        build("oft", "qwen2", r=7)
    with pytest.raises(ModelFault, match=r"boft\.boft_block_num=7 does not divide"):
        build("boft", "qwen2", boft_block_num=7)
    assert build("oft", "qwen2", r=4).peft_config["default"].oft_block_size == 0


def test_a_layer_with_a_size_of_its_own_does_not_bind_the_others():
    assert build("c3a", "qwen2", block_size_pattern={"down_proj": 16}).peft_config["default"].block_size == 16


def test_gralora_of_the_library_is_checked_against_the_layers():
    with pytest.raises(ModelFault, match=r"library\.settings\.gralora_k=3 does not divide"):
        build("library:gralora", "qwen2", settings={"gralora_k": 3, "r": 3})
