"""Initializations of LoRA that need training rows, packages or a GPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.adapters import initializers
from harness.adapters.attach import attach
from harness.errors import ModelFault
from tests.support.method_cases import (
    batches,
    build,
    context,
    parts,
)
from tests.support.tuners_models import base_model


def test_eva_without_rows_is_refused():
    lone = dataclasses.replace(context(), batches=None)
    with pytest.raises(ModelFault, match="init_lora_weights=eva needs the training rows"):
        attach(base_model("qwen2"), *parts("lora:eva")[:2], lone)


def test_eva_says_why_it_cannot_start_on_few_tokens():
    few = {name: tensor[:1, :3] for name, tensor in next(batches()).items()}
    short = dataclasses.replace(context(), batches=lambda: iter([few]))
    with pytest.raises(ModelFault, match=r"the largest has 3 tokens, and \d+ directions are sought\); use larger"):
        attach(base_model("qwen2"), *parts("lora:eva")[:2], short)


def test_eva_ends_when_its_directions_do_not_settle(monkeypatch, capsys):
    monkeypatch.setattr(initializers, "EVA_PASSES", 1)
    with pytest.raises(ModelFault, match="its directions did not settle in 1 batches"):
        attach(base_model("qwen2"), *parts("lora:eva")[:2], context())
    assert capsys.readouterr().out == ""


def test_loftq_is_refused_with_everything_that_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFault, match=r"bitsandbytes is not .*pip install scipy.*no GPU; choose another init"):
        build("lora", "qwen2", init_lora_weights="loftq")
