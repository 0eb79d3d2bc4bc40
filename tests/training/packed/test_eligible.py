"""Which plans can train together, and which of those do."""

from dataclasses import replace

import pytest

from harness.training.packed.eligible import pack_key, why_alone
from tests.support.packs import SETTINGS
from tests.support.sweeps import make_cell


@pytest.fixture
def cell(tmp_path, weightless):
    return lambda *words: make_cell(tmp_path, weightless, *words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("peft.method=adalora",), "peft=adalora: packs take lora and ia3"),
        (("lora.use_dora=true",), "use_dora=true: its norms are of whole weights"),
        (("lora.init_lora_weights=pissa",), "init_lora_weights=pissa changes what the runs share"),
        (("lora.init_lora_weights=mica",), "init_lora_weights=mica changes"),
        (("lora.bias=all",), "lora.bias=all trains weights of the base"),
        (("lora.modules_to_save=[lm_head]",), "lora.modules_to_save trains whole modules"),
        (("peft.method=ia3", "ia3.modules_to_save=[lm_head]"), "ia3.modules_to_save trains whole modules"),
        (("trainer.objective=lesson", "data.template=lesson_exact"), "objective=lesson: packs take completion"),
        (("trainer.gradient_checkpointing=true",), "gradient_checkpointing=true computes each layer again"),
        (("model.quantization=nf4",), "model.quantization=nf4: packs take unquantized bases"),
        (("model.device_map=auto",), "model.device_map=auto spreads the base"),
    ],
)
def test_what_cannot_be_packed_has_a_reason(cell, words, reason):
    assert reason in (why_alone(cell(*words).plan) or "")


def test_sharded_runs_are_not_packed(cell):
    from harness.config.schema import Strategy

    plan = cell().plan
    parallel = replace(plan.trainer.parallel, strategy=Strategy.ddp)
    sharded = replace(plan, trainer=replace(plan.trainer, parallel=parallel))
    assert "takes several processes for one run" in (why_alone(sharded) or "")


def key(cell) -> str:
    return pack_key(cell.plan, cell.options)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_pack_may_differ_in_does_not_part_it(cell, name):
    words = [word.replace("peft=", "peft.method=") for word in SETTINGS[name]]
    made = cell(*words)
    assert why_alone(made.plan) is None
    assert key(made) == key(cell())


@pytest.mark.parametrize(
    "word",
    [
        "trainer.batch_size=3",
        "trainer.gradient_accumulation_steps=2",
        "trainer.deterministic=true",
        "trainer.threads=3",
        "data.max_tokens=100",
        "data.limits.train=5",
        "model.dtype=bfloat16",
    ],
)
def test_what_the_runs_of_a_pack_share_parts_it(cell, word):
    assert key(cell(word)) != key(cell())
