"""LoRA's linear layers: base product, low-rank product and their gradients in one node of the graph.

PEFT's layer casts its input to the adapter's float32 and lets autocast cast it back, multiplies and adds in separate
operations, and keeps each intermediate for the backward pass. In bfloat16 on a GPU these small operations, not the
products, are most of a step of a small model; on a CPU they are memory traffic. The node here keeps the input once,
in the precision of the products, and the small ``x A^T``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from harness.models.network import is_whole


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[int]:
    """Let every plain LoRA layer of the model compute in one node; gives their number and restores them at the end.

    Layers with another form keep PEFT's forward pass: DoRA and other variants, quantized or transposed base weights,
    base weights or biases that train, LoRA's own bias, several active adapters, and layers with hooks.
    """
    fused: list[Any] = [module for module in model.modules() if _is_plain(module)]
    copies = Copies()
    for layer in fused:
        layer.forward = _Forward(layer, copies)
    begins = model.register_forward_pre_hook(copies.forget)
    try:
        yield len(fused)
    finally:
        begins.remove()
        for layer in fused:
            del layer.forward


def _is_plain(module: Any) -> bool:
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or "forward" in vars(module):
        return False
    base, names = module.base_layer, module.active_adapters
    if (
        type(base) is not nn.Linear
        or len(names) != 1
        or names[0] not in module.lora_A
        or names[0] in module.lora_variant
    ):
        return False
    [name] = names
    a, b = module.lora_A[name], module.lora_B[name]
    weights = [base.weight, a.weight, b.weight, *([] if base.bias is None else [base.bias])]
    return (
        not module.fan_in_fan_out
        and type(a) is nn.Linear
        and type(b) is nn.Linear
        and b.bias is None
        and type(module.lora_dropout[name]) in (nn.Identity, nn.Dropout)
        and all(map(is_whole, weights))
        and not any(weight.requires_grad for weight in weights if weight is base.weight or weight is base.bias)
        and not any(_hooked(each) for each in (module, base, a, b))
    )


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


class Copies:
    """Copies of float32 weights in the precision of the products, all made at once before each pass.

    Autocast would convert them one by one, and on a GPU each conversion costs as much as the small product it serves.
    Whether a weight has changed is not asked: fused optimizers on a GPU do not count their changes.
    """

    def __init__(self) -> None:
        self._weights: list[nn.Parameter] = []
        self._copies: list[torch.Tensor] | None = None

    def add(self, weight: nn.Parameter) -> int:
        """Take care of this weight; gives its number."""
        self._weights.append(weight)
        return len(self._weights) - 1

    def of(self, number: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight in ``dtype``, as it was when the pass began."""
        weight = self._weights[number]
        if weight.dtype is dtype:
            return weight.detach()
        if self._copies is None or self._copies[number].dtype is not dtype:
            self._copies = self._made(dtype)
        return self._copies[number]

    def forget(self, *_: Any) -> None:
        """A pass begins; its copies are made when they are first asked for."""
        self._copies = None

    @torch.no_grad()
    def _made(self, dtype: torch.dtype) -> list[torch.Tensor]:
        copies = [torch.empty_like(weight, dtype=dtype) for weight in self._weights]
        torch._foreach_copy_(copies, [weight.detach() for weight in self._weights])
        return copies


class _Forward:
    """The forward pass of one layer."""

    def __init__(self, layer: Any, copies: Copies) -> None:
        self._layer, [self._name] = layer, layer.active_adapters
        self._dropout = layer.lora_dropout[self._name]
        self._a, self._b = layer.lora_A[self._name], layer.lora_B[self._name]
        self._copies = copies
        self._number_a, self._number_b = copies.add(self._a.weight), copies.add(self._b.weight)

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = self._layer
        if args or kwargs or layer.disable_adapters or layer.merged:
            return type(layer).forward(layer, x, *args, **kwargs)
        kind, base = x.device.type, layer.base_layer
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.weight.dtype
        dropped = x if isinstance(self._dropout, nn.Identity) or not self._dropout.training else self._dropout(x)
        with torch.autocast(kind, enabled=False):
            return LowRankLinear.apply(
                *(x, dropped, base.weight, base.bias, self._a.weight, self._b.weight),
                *(self._copies.of(self._number_a, dtype), self._copies.of(self._number_b, dtype)),
                layer.scaling[self._name],
            )


class LowRankLinear(torch.autograd.Function):
    """``x W^T + b + scale * dropped A^T B^T`` with W and b frozen.

    Shapes: x and dropped (..., in), W (out, in), b (out), A (rank, in), B (out, rank). ``dropped`` is x itself without
    dropout. Computed in the type of the copies of A and B, in which the result is; gradients have their weights' type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        a_rd: torch.Tensor,
        b_or: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """The layer's output, (..., out); ``a_rd`` and ``b_or`` are A and B, perhaps in another type."""
        same, dtype = dropped is x, a_rd.dtype
        x_md = x.reshape(-1, x.shape[-1]).to(dtype)
        read_md = x_md if same else dropped.reshape(-1, x.shape[-1]).to(dtype)
        w_od = weight.to(dtype)
        y_mo = functional.linear(x_md, w_od, None if bias is None else bias.to(dtype))
        h_mr = functional.linear(read_md, a_rd) * scale
        y_mo.addmm_(h_mr, b_or.T)
        ctx.save_for_backward(read_md, h_mr, w_od, a_rd, b_or)
        ctx.same, ctx.scale, ctx.shape, ctx.types = same, scale, x.shape, (x.dtype, dropped.dtype, a.dtype, b.dtype)
        return y_mo.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        """Gradients of x, dropped, A and B."""
        [grad] = grads
        read_md, h_mr, w_od, a_rd, b_or = ctx.saved_tensors
        x_type, dropped_type, a_type, b_type = ctx.types
        needs_x, needs_dropped, _, _, needs_a, needs_b = ctx.needs_input_grad[:6]
        g_mo = grad.reshape(-1, grad.shape[-1]).to(w_od.dtype)
        gx_md = gread_md = ga_rd = gb_or = None
        if needs_b:
            gb_or = (g_mo.T @ h_mr).to(b_type)
        if needs_a or needs_x or needs_dropped:
            gh_mr = (g_mo @ b_or) * ctx.scale
            if needs_a:
                ga_rd = (gh_mr.T @ read_md).to(a_type)
            if needs_x:
                gx_md = g_mo @ w_od
                if ctx.same:
                    gx_md.addmm_(gh_mr, a_rd)
                gx_md = gx_md.to(x_type).view(ctx.shape)
            if needs_dropped and not ctx.same:
                gread_md = (gh_mr @ a_rd).to(dropped_type).view(ctx.shape)
        return gx_md, gread_md, None, None, ga_rd, gb_or, None, None, None
