"""Modules that no tuner of these can train."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from tests.support.tuners_models import (
    base_model,
    setting,
)


@pytest.mark.parametrize("method", ["partial_layers", "diff_pruning"])
def test_quantized_weights_are_refused(method):
    base = base_model("llama")
    for block in base.model.layers:
        block.mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(48, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"up_proj, whose weight is torch.int8 \(quantized\)"):
        get_peft_model(base, setting(method))
