"""A base pruned before it is tuned: the share is reached, recorded, and kept by methods that leave the base alone."""

import pytest
import torch

from harness.adapters import save_load
from harness.errors import ConfigFault
from harness.models import pruning
from harness.models.base import fork, load_base
from harness.plan.from_record import plan_of_record
from tests.support.runs import command, overrides, plan_of, records_of, write_rows


def test_the_smallest_linear_weights_become_zero_and_the_head_stays(random_qwen2):
    whole = load_base(plan_of(f"model.path={random_qwen2}")[0].model).model
    base = load_base(plan_of(f"model.path={random_qwen2}", "model.prune=0.4")[0].model)
    weights = torch.cat([layer.weight.flatten() for layer in pruning.linear_layers(whole)])
    after = torch.cat([layer.weight.flatten() for layer in pruning.linear_layers(base.model)])
    assert int((after == 0).sum()) == round(0.4 * len(weights))
    assert weights[after == 0].abs().max() <= weights[after != 0].abs().min()
    assert torch.equal(after[after != 0], weights[after != 0])
    assert torch.equal(base.model.lm_head.weight, whole.lm_head.weight)
    assert base.model.lm_head.weight is base.model.model.embed_tokens.weight
    assert not [name for name, _ in base.model.named_buffers() if "mask" in name]


@pytest.mark.slow
def test_run_records_the_share_scores_the_pruned_base_and_keeps_it_pruned(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows", train_rows=8, others=4)
    words = overrides(random_qwen2, rows, tmp_path / "runs")
    for more in ("model.prune=0.5", "model.prune=0.0"):
        done = command(*words, more)
        assert done.code == 0, done.err
    by_share = {kept["plan"]["model"]["prune"]: kept for kept in records_of(tmp_path / "runs").values()}
    half, none = by_share[0.5], by_share[0.0]
    assert half["inferred"]["pruned_share"] == pytest.approx(0.5, abs=1e-4)
    assert "pruned_share" not in none["inferred"]
    assert half["scores"]["before"]["loss"] != none["scores"]["before"]["loss"]
    plan = plan_of_record(half)
    base = load_base(plan.model)
    folder = tmp_path / "runs" / half["fingerprint"] / half["adapter"]["path"]
    tuned = save_load.load_adapter(fork(base, False), folder, plan)
    left = [module.base_layer for module in tuned.modules() if hasattr(module, "base_layer")]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(left, same_layers(base.model, left), strict=True))
    assert pruning.zero_share(base.model) == half["inferred"]["pruned_share"]


def same_layers(net, layers):
    """The layers of ``net`` over the same storage."""
    by_place = {layer.weight.data_ptr(): layer for layer in pruning.linear_layers(net)}
    return [by_place[layer.weight.data_ptr()] for layer in layers]


def test_impossible_shares_and_quantized_bases_are_refused(weightless):
    with pytest.raises(ConfigFault, match=r"model\.prune=1\.0 must be at least 0 and below 1"):
        plan_of(f"model.path={weightless}", "model.prune=1.0")
    with pytest.raises(ConfigFault, match=r"model\.prune=0\.5 .* model\.quantization=nf4"):
        plan_of(f"model.path={weightless}", "model.prune=0.5", "model.quantization=nf4")


def test_no_pruning_leaves_the_fingerprint(weightless):
    plain, same, other = (
        plan_of(f"model.path={weightless}", *more)[0] for more in ([], ["model.prune=0"], ["model.prune=0.1"])
    )
    assert plain.fingerprint == same.fingerprint != other.fingerprint
