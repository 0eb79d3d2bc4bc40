"""Types of PEFT without a sheet of their own."""

from __future__ import annotations

import pytest
import torch

from harness.adapters.attach import attach
from harness.errors import ModelFault
from harness.methods import library
from harness.methods.registry import METHODS, changes_base, traits_of
from harness.methods.traits import Traits
from tests.support.method_cases import (
    LIBRARY,
    SHEETS,
    batches,
    build,
    context,
)
from tests.support.tuners_models import base_model


def test_a_type_of_the_library_that_has_a_sheet_has_its_traits():
    def of(kind: str, **settings: object) -> Traits:
        return traits_of("library", {"type": kind, "settings": settings})

    assert of("PROMPT_TUNING") == METHODS["prompt_tuning"].traits
    assert of("adaption_prompt") == METHODS["llama_adapter"].traits
    assert of("lora") == METHODS["lora"].traits
    assert of("lora", init_lora_weights="pissa").rewrites_base
    assert changes_base("library", {"type": "full", "settings": {}})


def test_every_type_of_the_library_has_traits_of_its_own():
    assert set(library.LIBRARY) == {*LIBRARY, "adamss"}


def test_an_unknown_type_lists_the_types():
    with pytest.raises(ModelFault, match=r"library\.type=nonesuch is unknown; choose one of .*deft"):
        attach(base_model("qwen2"), "library", {"type": "nonesuch", "settings": {}}, context())


def test_an_unknown_field_lists_the_fields():
    with pytest.raises(ModelFault, match=r"library\.settings\.rank=3 is unknown to DeftConfig; it has r, "):
        build("library:deft", "qwen2", settings={"rank": 3})


def test_xlora_is_refused_with_the_reason():
    assert "trained before" in library.library_faults("xlora", {})[0]


def test_every_type_of_peft_is_reachable():
    tried = {kind.partition(":")[0] for kind in LIBRARY} | {"adamss"}
    named = {"p_tuning_v2": "prefix_tuning", "llama_adapter": "adaption_prompt"}
    assert set(library.library_types()) == tried | {named.get(name, name) for name in SHEETS} | set(library.REFUSED)


def test_adamss_trains_where_scikit_learn_is_installed():
    pytest.importorskip("sklearn", reason="AdaMSS clusters with scikit-learn")
    settings = {"type": "adamss", "settings": {"r": 8, "num_subspaces": 3}}
    model = attach(base_model("qwen2"), "library", settings, context())
    losses = []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(10):
        loss = model(**next(batches())).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_adamss_without_scikit_learn_is_refused_with_the_command_that_installs_it(monkeypatch):
    def lacking(self: object) -> None:
        raise ImportError("scikit-learn is required for AdaMSS. Please install it with: pip install scikit-learn")

    monkeypatch.setattr(library.library_types()["adamss"], "__post_init__", lacking)
    with pytest.raises(ModelFault, match=r"peft=library lacks a package: .*pip install scikit-learn"):
        attach(base_model("qwen2"), "library", {"type": "adamss", "settings": {}}, context())
