"""What a pass on shapes alone says, against what torch keeps and counts."""

import gc
from contextlib import nullcontext

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from harness.data.tokenize import IGNORED
from harness.errors import ModelFault
from harness.estimate.allocation import LiveBytes, most_allocated
from harness.estimate.footprint import Batch, counting, footprint
from harness.models.base import load_base
from harness.models.network import checkpoint_layers
from harness.plan.read import read_config
from harness.training.fused.head import fused_head
from harness.training.fused.passes import fused_passes
from tests.support.configs import compose
from tests.support.runs import ready

BATCH = Batch(4, 32, 12)


def plan_of(*words: str):
    return read_config(compose(*words))[0]


@pytest.fixture(scope="module")
def lora():
    return footprint(plan_of("peft=lora"), "float32", BATCH)


def test_live_bytes_follow_what_is_made_and_freed():
    live = LiveBytes()
    with live:
        first = torch.zeros(1000)
        with live.making("other"):
            second = first + 1
        del first
        third = second + 1
        view = third[10:]
    assert live.peak == {"activations": 4000, "other": 4000}
    del second, third, view
    assert sum(live.live.values()) == 0


def test_parts_of_a_lora_run(lora):
    plan = plan_of("peft=lora")
    from harness.estimate.plan_counter import PlanCounter

    counts = PlanCounter().count(plan)
    assert lora.weights == 4 * (counts.total - counts.trainable)
    assert lora.adapter == lora.gradients == 4 * counts.trainable
    assert lora.optimizer == 8 * counts.trainable
    assert lora.activations > 0 < lora.logits
    assert lora.above_weights_in_training == lora.adapter + lora.optimizer + lora.during


def test_activations_rise_with_the_rows_in_a_straight_line(lora):
    sizes = [footprint(plan_of("peft=lora"), "float32", Batch(rows, 32, 12)).activations for rows in (8, 12)]
    assert sizes[1] - sizes[0] == pytest.approx(sizes[0] - lora.activations, rel=0.02)


def test_checkpointing_and_half_precision_take_less(lora):
    assert footprint(plan_of("peft=lora"), "float32", BATCH, checkpointing=True).activations < lora.activations / 3
    assert footprint(plan_of("peft=lora"), "bfloat16", BATCH).weights == lora.weights / 2


def allocated_in_a_pass(model, trainer) -> int:
    """The most bytes at once that torch has allocated in a pass forward and backward over ``BATCH``."""
    ids = torch.zeros((BATCH.rows, BATCH.tokens), dtype=torch.long)
    labels = ids.masked_fill(torch.arange(BATCH.tokens) < BATCH.tokens - BATCH.labels, IGNORED)
    kept = {"labels": labels[:, -BATCH.labels - 1 :], "logits_to_keep": BATCH.labels + 1}
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
        fused_passes(model, trainer) as fused,
        fused_head(model) if fused else nullcontext(),
    ):
        model(input_ids=ids, use_cache=False, **kept).loss.backward()
    return most_allocated(seen)


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_peak_is_what_torch_allocates_though_no_garbage_is_collected(checkpointing, kernels, tmp_path):
    plan = plan_of("peft=lora", f"trainer.kernels={kernels}")
    model = ready(plan, load_base(plan.model), tmp_path).model.train()
    if checkpointing:
        checkpoint_layers(model, preserve_rng_state=False)
    found = allocated_in_a_pass(model, plan.trainer)
    gc.disable()
    try:
        assert footprint(plan, "float32", BATCH, checkpointing).during == pytest.approx(found, rel=0.05)
    finally:
        gc.enable()


def test_packed_weights_take_four_bits(lora):
    packed = footprint(plan_of("peft=lora", "model.quantization=nf4"), "float32", BATCH)
    assert packed.weights < lora.weights


def test_full_training_holds_a_copy_of_the_base():
    found = footprint(plan_of("peft=full"), "float32", BATCH)
    assert found.adapter == found.weights == found.gradients
    assert found.during >= found.gradients


def test_a_method_that_computes_with_the_weights_is_refused():
    with pytest.raises(ModelFault, match="peft=fourierft computes with base weights"):
        footprint(plan_of("peft=fourierft"), "float32", BATCH)


def test_attention_on_a_cpu_is_counted():
    q = torch.zeros(2, 4, 8, 16, requires_grad=True)
    with counting() as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    forward = 2 * 2 * 4 * 8 * 8 * (16 + 16)
    assert counter.get_total_flops() == pytest.approx(3.5 * forward)


def test_products_that_are_added_in_place_are_counted():
    with counting() as counter:
        torch.zeros(2, 5).addmm_(torch.zeros(2, 3), torch.zeros(3, 5))
    assert counter.get_total_flops() == 2 * 2 * 3 * 5


def test_what_an_operation_holds_inside_counts_for_the_peak():
    with LiveBytes() as live:
        torch.zeros(10, 100).logsumexp(dim=-1)
    assert live.peak == {"activations": 4000 + 40 + 4000}
