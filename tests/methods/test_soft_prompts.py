"""The context of CPT."""

from __future__ import annotations

import pytest
import torch

from harness.errors import ModelFault
from tests.support.method_cases import (
    batches,
    build,
)


def test_the_context_of_cpt_is_the_end_of_the_first_rows():
    config = build("cpt", "qwen2").peft_config["default"]
    first = next(batches())
    row = first["input_ids"][0].tolist()
    assert config.cpt_token_ids == row[-8:]
    assert config.cpt_tokens_type_mask == [2, 2, 2, 4, 4, 4, 4, 4]


def test_a_context_whose_highest_type_is_not_a_label_is_refused():
    with pytest.raises(ModelFault, match="label token"):
        build("cpt", "qwen2", cpt_token_ids=[5, 6], cpt_tokens_type_mask=[2, 2])
    model = build("cpt", "qwen2", cpt_token_ids=[5, 6, 7])
    assert torch.isfinite(model(**next(batches())).loss)
