"""How many runs share a pass: the estimate of memory against what torch keeps, and the rule that follows from it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from harness.estimate import packing
from harness.estimate.packing import bytes_of_run, runs_together

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIG = LlamaConfig(vocab_size=300, **SIZES)


def kept_by_torch(model, ids) -> int:
    """Bytes that the forward pass keeps for the backward pass besides weights; storages that are shared count once."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids, labels=ids)
    return sum(size for size, _ in sizes.values())


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (CONFIG, LlamaForCausalLM),
        (
            Qwen2Config(vocab_size=2000, **SIZES | {"intermediate_size": 512, "num_key_value_heads": 2}),
            Qwen2ForCausalLM,
        ),
    ],
)
@pytest.mark.parametrize("length", [16, 64])
def test_the_estimate_is_near_what_a_pass_keeps(config, model, length):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model(config), LoraConfig(r=4, target_modules="all-linear")).train()
    kept = kept_by_torch(adapted, torch.randint(0, config.vocab_size, (4, length)))
    estimate = bytes_of_run(config, 4 * length, trained=0)
    # Above, because gradients come on top of what is kept.
    assert kept <= estimate <= 2 * kept, (kept, estimate)


def together(**given):
    values = {"tokens": 100.0, "most_tokens": 128, "trained": 1000, "free_bytes": 10**12} | given
    device = values.pop("device", "cpu")
    return runs_together(CONFIG, device, **values)


def test_on_a_cpu_the_tokens_of_a_pass_decide(monkeypatch):
    monkeypatch.setitem(packing.TOKENS_THAT_PAY, "cpu", 400)
    found = together()
    assert (found.runs, "beyond 400 in a pass it is not faster here" in found.why) == (4, True)
    assert together(tokens=401.0).runs == 1


def test_on_a_gpu_memory_decides():
    each = bytes_of_run(CONFIG, 128, 1000)
    found = together(device="cuda", free_bytes=10 * each)
    assert (found.runs, "each takes about" in found.why) == (int(10 * packing.MEMORY_SHARE), True)


def test_what_the_user_wants_overrules_what_pays_but_not_memory():
    assert together(tokens=10_000.0, wanted=6).runs == 6
    assert together(wanted=6, free_bytes=1).runs == 1


def test_longer_batches_and_larger_adapters_take_more():
    small = bytes_of_run(CONFIG, 100, 1000)
    assert bytes_of_run(CONFIG, 200, 1000) > small
    assert bytes_of_run(CONFIG, 100, 2000) - small == 1000 * packing.BYTES_PER_TRAINED
    assert bytes_of_run(CONFIG, 100, 1000, element_bytes=2) < small
