"""Every method under seeds: equal seeds give equal bits, different seeds different starts."""

from __future__ import annotations

import pytest
import torch

from harness.adapters.attach import inferred
from harness.methods import library
from harness.methods.context import SEEDS
from tests.support.method_cases import (
    LIBRARY,
    SHEETS,
    build,
    every_case,
    every_quick_case,
    finish,
    logits,
    parts,
    sheet,
    train,
    trained,
)


@every_case
def test_two_runs_of_one_seed_are_bit_equal(case):
    model = build(case, "qwen2")
    train(model, case)
    finish(model, case)
    assert torch.equal(logits(model), trained(case, "qwen2").logits)


# Methods whose start draws nothing: their seeds differ only in the order of the rows.
DRAWS_NOTHING = {
    *("full", "partial", "bitfit", "diff_pruning", "ln_tuning", "trainable_tokens", "ia3", "miss", "oft", "boft"),
    *("road", "cpt", "lora:olora", "lora:mica", "lora:corda", "lora:pissa"),
    *(f"library:{kind}" for kind in ("beft", "osf", "psoft", "supertuning")),
}


def moved(case: str, seed: int) -> torch.Tensor:
    """Logits with every trained number moved by as much, so that frozen random parts show."""
    model = build(case, "qwen2", seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    return logits(model)


@every_quick_case
def test_two_seeds_start_apart_unless_the_start_draws_nothing(case):
    assert torch.equal(moved(case, 7), moved(case, 8)) == (case in DRAWS_NOTHING)


@pytest.mark.parametrize("method", [name for name in SHEETS if set(SEEDS) & set(sheet(name))])
def test_a_seed_of_the_methods_own_is_that_of_the_run_unless_given(method):
    [field] = set(SEEDS) & set(sheet(method))
    assert sheet(method)[field] is None
    config = build(method, "qwen2", seed=11).peft_config["default"]
    assert getattr(config, field) == 11
    assert getattr(build(method, "qwen2", seed=11, **{field: 5}).peft_config["default"], field) == 5


@pytest.mark.parametrize("kind", [kind for kind in LIBRARY if set(SEEDS) & set(library.library_fields(kind))])
def test_a_library_types_own_seed_is_that_of_the_run_unless_given(kind):
    [field] = set(SEEDS) & set(library.library_fields(kind))
    model = build(f"library:{kind}", "qwen2", seed=11)
    assert getattr(model.peft_config["default"], field) == 11
    _, settings, _ = parts(f"library:{kind}")
    assert inferred(model, settings)[field] == 11
    given = {"settings": LIBRARY[kind] | {field: 5}}
    assert getattr(build(f"library:{kind}", "qwen2", seed=11, **given).peft_config["default"], field) == 5
