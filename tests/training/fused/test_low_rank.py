"""LoRA's layers in one node against PEFT's."""

import pytest
import torch
from peft.tuners.lora.layer import Linear

from harness.training.fused.low_rank import Copies, fused_lora
from tests.support.batches import example_batch
from tests.support.runs import disturbed, prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


def passed(model, batch, dtype=torch.float32, fuse=True):
    """Loss, gradients and logits of one pass; and how many layers were fused."""
    model.zero_grad()
    torch.manual_seed(3)
    count = 0
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        if fuse:
            with fused_lora(model) as count:
                out = model(**batch)
                out.loss.backward()
        else:
            out = model(**batch)
            out.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return out.loss.detach(), gradients, out.logits.detach(), count


FUSED = {
    "all linear layers": (),
    "some layers": ("lora.target_modules=[q_proj,down_proj]",),
    "rslora": ("lora.use_rslora=true",),
    "gaussian": ("lora.init_lora_weights=gaussian",),
    "dropout": ("lora.lora_dropout=0.3",),
    "patterns": ("+lora.rank_pattern={v_proj: 5}", "+lora.alpha_pattern={q_proj: 9}"),
    "lora+": ("lora.loraplus_lr_ratio=4",),
    "lora-fa": ("lora.lora_fa=true",),
}


@pytest.mark.parametrize("case", FUSED)
def test_loss_and_gradients_are_those_of_peft(random_qwen2, rows, tmp_path, case):
    made = prepared(random_qwen2, rows, tmp_path, "peft=lora", "lora.r=3", *FUSED[case])
    model = disturbed(made.model).train()
    batch = example_batch(made)
    loss, gradients, logits, _ = passed(model, batch, fuse=False)
    fused_loss, fused_gradients, fused_logits, count = passed(model, batch)
    assert count == sum(type(module) is Linear for module in model.modules())
    torch.testing.assert_close(fused_loss, loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fused_logits, logits, rtol=1e-5, atol=1e-5)
    assert fused_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert float((fused_gradients[name] - gradient).norm()) <= 5e-5 * float(gradient.norm()), name


def test_bfloat16_agrees_within_its_rounding(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path, "peft=lora", "lora.r=3")
    model = disturbed(made.model).train()
    batch = example_batch(made)
    _, exact, _, _ = passed(model, batch, fuse=False)
    apart = {}
    for fuse in (False, True):
        _, gradients, _, _ = passed(model, batch, torch.bfloat16, fuse)
        assert {each.dtype for each in gradients.values()} == {torch.float32}
        difference = sum(float((gradients[name] - exact[name]).square().sum()) for name in exact)
        apart[fuse] = (difference / sum(float(each.square().sum()) for each in exact.values())) ** 0.5
    assert apart[True] < 1.5 * apart[False] + 1e-3  # no farther from float32 than PEFT's own bfloat16


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("lora.use_dora=true",), 0),
        (("lora.bias=lora_only",), 8),  # q, k and v of two layers have a bias that now trains
        (("lora.target_modules=[q_proj,lm_head]",), 2),  # the head has a hook
        (("peft=ia3",), 0),
    ],
)
def test_other_forms_keep_their_own_pass(random_qwen2, rows, tmp_path, words, count):
    made = prepared(random_qwen2, rows, tmp_path, "peft=lora", *words)
    with fused_lora(made.model) as fused:
        assert fused == count


def test_the_layers_are_restored_and_a_disabled_adapter_is_off(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path, "peft=lora")
    model = disturbed(made.model)
    batch = example_batch(made)
    with torch.no_grad(), fused_lora(model):
        with model.disable_adapter():
            off = model(**batch).logits
        on = model(**batch).logits
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(off, model(**batch).logits)
    assert (on - off).abs().max() > 1e-3


def test_copies_are_of_the_pass_they_were_made_in():
    weights = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    copies = Copies()
    numbers = [copies.add(weight) for weight in weights]
    assert copies.of(numbers[0], torch.float32).data_ptr() == weights[0].data_ptr()
    before = copies.of(numbers[1], torch.bfloat16)
    weights[1].data.add_(1)  # uncounted, as a fused optimizer on a GPU changes it
    copies.forget()
    assert copies.of(numbers[1], torch.bfloat16).tolist() == [2, 2, 2]
    assert before.tolist() == [1, 1, 1]  # a pass that holds it still goes backward through what it computed with


def test_a_pass_in_bfloat16_sees_weights_that_were_changed_without_being_counted(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path, "peft=lora")
    batch = example_batch(made)
    found = []
    with torch.no_grad(), fused_lora(made.model), torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            found.append(made.model(**batch).loss.item())
            for name, weight in made.model.named_parameters():
                if "lora_" in name:
                    weight.data.add_(0.05)
    assert found[0] != found[1]
