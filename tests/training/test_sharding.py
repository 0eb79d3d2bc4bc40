"""Batches, weights and models as several processes share them."""

import copy

import pytest
import torch

from harness.data import collate as data_collate
from harness.models import base as model_base
from harness.training import sharding
from tests.support.runs import loaded, prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


def test_a_batch_without_rows_keeps_step_and_adds_nothing(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path)
    examples = made.rows.splits["train"]
    collate = sharding.in_step(lambda batch: data_collate.collate(batch, 0, "right"), examples[0])
    part = collate([examples[1], None])
    assert part["input_ids"].tolist() == data_collate.collate([examples[1]], 0, "right")["input_ids"].tolist()
    nothing = collate([None, None])
    assert (nothing["labels"] == -100).all()
    loss = made.model(**nothing, num_items_in_batch=torch.tensor(5)).loss
    loss.backward()
    assert loss.item() == 0
    gradients = [weight.grad for weight in made.model.parameters() if weight.requires_grad]
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_a_model_spread_by_hooks_trains_as_a_whole_one_does(random_qwen2, rows, tmp_path):
    from accelerate import dispatch_model

    whole = prepared(random_qwen2, rows, tmp_path)
    base = copy.copy(loaded(random_qwen2))
    devices = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu")
    devices |= {f"model.layers.{layer}": "cpu" for layer in (0, 1)}
    base.model = dispatch_model(copy.deepcopy(base.model), devices, main_device="cpu", force_hooks=True)
    spread = prepared(random_qwen2, rows, tmp_path, base=base)
    layer = spread.model.get_base_model().model.layers[1]
    assert layer.forward.args[0] is layer  # the hook calls this fork's layer, not the base's
    curves = [[point["loss"] for point in made.train(tmp_path).curve] for made in (whole, spread)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)


def test_parked_weights_come_back_bit_for_bit_and_still_share_storage(random_qwen2):
    base = loaded(random_qwen2)
    fork = model_base.fork(base, private_weights=False)
    before = model_base.fingerprint_weights(base.model)
    parameters = [*base.model.parameters(), *fork.parameters()]
    sharding.move_weights(parameters, [torch.device("cpu")] * len(parameters))
    for mine, its in zip(base.model.parameters(), fork.parameters(), strict=True):
        assert mine.data_ptr() == its.data_ptr()
    assert model_base.fingerprint_weights(base.model) == model_base.fingerprint_weights(fork) == before
