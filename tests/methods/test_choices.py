"""Every value that a sheet offers works on the embedded model, or is refused with what it needs."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest
import torch

from harness.adapters import save_load
from harness.config.compose import sheet_values
from harness.data.collate import collate
from harness.errors import ConfigFault, ModelFault
from harness.estimate.plan_counter import PlanCounter
from harness.methods.registry import METHODS, hooks_of, traits_of
from harness.models.base import fork
from harness.plan.read import read_config
from harness.plan.spec import Plan
from harness.shipped import shipped_folder
from tests.support.configs import overridden
from tests.support.runs import Prepared, disturbed, loaded, logits_of, overrides, ready, write_rows

# What must be given beside a value, and what a value is refused for.
BESIDE = {
    "prompt_tuning.prompt_tuning_init=TEXT": ["prompt_tuning.prompt_tuning_init_text=hello"],
    "lora.init_lora_weights=eva": ["lora.r=2"],  # of few rows
}
REFUSED = {
    "lora.init_lora_weights=loftq": "quantizes on a GPU with bitsandbytes",
    "hra.apply_GS=true": "needs an odd hra.r, not 8",
}


def offered() -> list[str]:
    """Every value of every enumeration and switch of every sheet, but for those that are the sheet's own."""
    found = []
    for name, method in METHODS.items():
        hints, values = get_type_hints(method.sheet), sheet_values(name)
        for each in dataclasses.fields(method.sheet):
            choices = each.metadata.get("choices") or ((True, False) if hints[each.name] is bool else ())
            found += [f"{name}.{each.name}={typed(value)}" for value in choices if value != values[each.name]]
    return found


def typed(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def planned(word: str, *more: str) -> Plan:
    return read_config(overridden(*more, word, *BESIDE.get(word, ()), onto=(f"peft={word.partition('.')[0]}",)))[0]


@pytest.fixture(scope="module")
def counter():
    return PlanCounter()


@pytest.mark.parametrize("word", offered())
def test_what_a_sheet_offers_can_be_planned(word, counter):
    if word == "lora.init_lora_weights=loftq" and torch.cuda.is_available():
        pytest.skip("LoftQ has what it needs here")
    if word in REFUSED:
        with pytest.raises((ConfigFault, ModelFault), match=REFUSED[word]):
            counter.count(planned(word))
        return
    assert counter.count(planned(word)).trainable


@pytest.mark.slow
@pytest.mark.parametrize("word", [word for word in offered() if word not in REFUSED])
def test_what_a_sheet_offers_trains_reloads_and_merges(word, tmp_path):
    folder = shipped_folder("data") / "tiny"
    words = overrides(folder, write_rows(tmp_path / "rows"), tmp_path / "runs")
    plan = planned(word, *(each for each in words if each != "data=alpaca"), "data.columns.target=null")
    made = ready(plan, loaded(folder), tmp_path / "runs")
    one_step(made)
    rows = made.rows.splits["test"]
    expected = logits_of(disturbed(made.model), rows)
    assert bool(expected.isfinite().all())
    save_load.save_adapter(made.write, tmp_path / "adapter", plan, made.model)
    again = save_load.load_adapter(fork(made.base, True), tmp_path / "adapter", plan)
    torch.testing.assert_close(logits_of(again, rows), expected, atol=1e-4, rtol=1e-4)
    if traits_of(plan.method, plan.settings).mergeable:
        torch.testing.assert_close(logits_of(again.merge_and_unload(), rows), expected, atol=1e-3, rtol=1e-3)


def one_step(made: Prepared) -> None:
    """One step of the method's optimizer, which must move something and leave everything finite."""
    before, sheet = made.trainable(), made.plan.settings
    hooks = hooks_of(made.plan.method, sheet)
    weights = [each for each in made.model.parameters() if each.requires_grad]
    optimizer = hooks.optimizer(made.model, sheet, 1e-3, 0.0) or torch.optim.AdamW(weights, lr=1e-3)
    made.model.train()
    made.model(**collate(made.rows.splits["train"][:4], 0, "right")).loss.backward()
    optimizer.step()
    hooks.after_optimizer_step(made.model, 1)
    after = dict(made.model.named_parameters())
    moved = [name for name, tensor in before.items() if name in after and not torch.equal(after[name], tensor)]
    assert moved
    assert all(bool(after[name].isfinite().all()) for name in moved)
    hooks.finish(made.model)


def test_the_advice_for_orthogonal_reflections_works(counter):
    plan = planned("hra.apply_GS=true", "hra.r=7")
    assert counter.count(plan).trainable
    assert not traits_of("hra", plan.settings).identity_at_start


def test_activations_are_those_that_transformers_knows():
    from transformers.activations import ACT2FN

    from harness.methods.bottleneck import ACTIVATIONS

    assert set(ACTIVATIONS) == set(ACT2FN)
