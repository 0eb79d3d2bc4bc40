"""What one training pass of a plan holds and computes, found on shapes alone: no weights, no device.

The base is built on the meta device and the method put on it, as for counting. Then one pass runs as in training:
autocast, written-out passes of ``training.fused``, checkpointing, losses in chunks.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from harness.adapters.attach import wrap_model
from harness.config.schema import Objective, Quantization
from harness.errors import ModelFault, first_line
from harness.estimate import costs
from harness.estimate.allocation import LiveBytes, without_numbers
from harness.methods.registry import changes_base, hooks_of
from harness.models.network import base_network, checkpoint_layers
from harness.plan.spec import Plan
from harness.scoring.losses import can_skip_logits
from harness.training.fused.head import HeadLoss, fused_head
from harness.training.fused.passes import fused_passes

MOMENTS = 8  # bytes of AdamW's two moments of a trained number, float32
# Bytes of a weight as bitsandbytes stores it: nf4 has a scale of 8 bits for 64 weights and one of 32 bits for 256
# scales; int8 has one of 32 bits for each row, which is counted apart.
STORED = {Quantization.nf4: 0.5 + 1 / 64 + 4 / (64 * 256), Quantization.int8: 1.0}


@dataclass(frozen=True)
class Batch:
    """Rows of one pass."""

    rows: int
    tokens: int  # of each, with padding
    labels: int  # of each that are trained
    padded: bool = True  # whether attention needs a mask


@dataclass(frozen=True)
class Footprint:
    """Bytes by part while a run trains, and the operations of one pass."""

    weights: int  # of the base, at its precision
    adapter: int  # what the method adds, and weights of the base that it copies in order to write to them
    gradients: int  # all of them; they come while activations go, so the peak can be below the sum
    optimizer: int
    activations: int  # at the peak
    logits: int  # at the peak
    during: int  # most of what a pass holds besides weights, adapter and optimizer states, gradients included
    cache: int  # keys and values of the answers that are written at a time
    forward_flops: float
    attention_flops: float  # of the whole pass, which rise with the square of the length
    flops: float  # forward and backward

    @property
    def above_weights_in_training(self) -> int:
        """The peak of training above the loaded base."""
        return self.adapter + self.optimizer + self.during

    @property
    def peak(self) -> int:
        """The most that is there at a time, in training or while answers are scored."""
        return self.weights + max(self.above_weights_in_training, self.adapter + self.cache)


def footprint(plan: Plan, dtype: str, batch: Batch, checkpointing: bool | None = None) -> Footprint:
    """What a pass over this batch holds.

    Args:
        dtype: of the base weights and of the arithmetic.
        checkpointing: instead of what the plan says.

    Raises:
        ModelFault: the method does not fit the model, or cannot be run without the base's numbers.
    """
    kept = plan.trainer.gradient_checkpointing if checkpointing is None else checkpointing
    with costs.configured(plan) as (skeleton, config):
        if costs.needs_weights(config):
            raise ModelFault(f"peft={plan.method} computes with base weights; its memory cannot be estimated")
        base = {id(parameter) for parameter in skeleton.parameters()}
        head = skeleton.get_output_embeddings()
        linear = [module for module in skeleton.modules() if type(module) is nn.Linear and module is not head]
        model: Any = wrap_model(skeleton, config)
    hooks = hooks_of(plan.method, plan.settings)
    hooks.optimizer(model, plan.settings, 1.0, 0.0)  # some freeze weights
    stored = _Stored(plan, getattr(torch, dtype), base, linear)
    weights, adapter, trained = stored.weights(model), stored.adapter(model), stored.trained(model)
    try:
        seen = _run(model, plan, stored, batch, kept, hooks.own_loss)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, LookupError) as error:
        raise ModelFault(
            f"peft={plan.method}: a pass cannot be traced without weights ({first_line(error)}); its memory cannot "
            "be estimated"
        ) from error
    gradients = 4 * trained
    accumulating = gradients if plan.trainer.gradient_accumulation_steps > 1 else 0
    during = max(sum(seen.peak.values()), gradients)
    if accumulating:  # those of earlier passes are there from the start
        during = max(during, sum(size for kind, size in seen.peak.items() if kind != "gradients") + gradients)
    return Footprint(
        weights=weights,
        adapter=adapter,
        gradients=gradients,
        optimizer=MOMENTS * trained,
        activations=seen.peak.get("activations", 0),
        logits=seen.peak.get("logits", 0),
        during=during,
        cache=_cache_bytes(skeleton.config, plan, batch, stored.dtype),
        forward_flops=seen.forward,
        attention_flops=seen.attention,
        flops=seen.flops,
    )


@dataclass(frozen=True)
class _Seen:
    peak: dict[str, int]
    forward: float
    attention: float
    flops: float


class _Stored:
    """How the numbers of a model are stored."""

    def __init__(self, plan: Plan, dtype: torch.dtype, base: set[int], linear: list[nn.Linear]) -> None:
        self.dtype, self.linear, self._base = dtype, linear, base
        self.kind = plan.model.quantization
        self._packed = {} if self.kind is Quantization.none else {id(each.weight): each for each in linear}
        self._copies = changes_base(plan.method, plan.settings)

    def dtype_of(self, name: str, tensor: torch.Tensor) -> torch.dtype:
        """Trained numbers are float32, and so is what bitsandbytes leaves alone."""
        if not tensor.is_floating_point() or not isinstance(tensor, nn.Parameter):
            return tensor.dtype
        if tensor.requires_grad or id(tensor) not in self._base:
            return torch.float32
        return torch.float32 if self._packed and id(tensor) not in self._packed else self.dtype

    def weights(self, model: nn.Module) -> int:
        """Bytes of the loaded base."""
        total = 0.0
        for parameter in model.parameters():
            if id(parameter) not in self._base:
                continue
            if id(parameter) in self._packed:
                rows = 4 * parameter.shape[0] if self.kind is Quantization.int8 else 0
                total += parameter.numel() * STORED[self.kind] + rows
            else:
                total += parameter.numel() * (4 if self._packed else self.dtype.itemsize)
        return int(total)

    def adapter(self, model: nn.Module) -> int:
        """Bytes of a run's own parameters."""
        own = [each for each in model.parameters() if self._copies or id(each) not in self._base]
        return sum(each.numel() * self.dtype_of("", each).itemsize for each in own)

    def trained(self, model: nn.Module) -> int:
        """Numbers that train."""
        return sum(each.numel() for each in model.parameters() if each.requires_grad)


def _run(model: Any, plan: Plan, stored: _Stored, batch: Batch, checkpointing: bool, own_loss: bool) -> _Seen:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if stored.kind is not Quantization.none:
        for module in stored.linear:
            module.forward = partial(_dequantizing, module)  # type: ignore[method-assign]
    without_numbers(model, mode, stored.dtype_of)
    if checkpointing:
        checkpoint_layers(model, preserve_rng_state=False)
    model.train()
    live = LiveBytes()
    live.ignore(iter([*model.parameters(), *model.buffers()]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda each: live.relabel(each.grad, "gradients"))
    half = stored.dtype in (torch.bfloat16, torch.float16)
    precision: Any = torch.autocast("cpu", dtype=stored.dtype) if half else nullcontext()
    with mode, counting() as counter, live, _written_out(model, plan, own_loss) as fused:
        with precision:
            loss = _loss(model, plan, batch, fused, own_loss, live)
        forward = float(counter.get_total_flops())
        loss.backward()
    return _Seen(live.peak, forward, attention_flops(counter), float(counter.get_total_flops()))


@contextmanager
def _written_out(model: Any, plan: Plan, own_loss: bool) -> Iterator[bool]:
    """The passes that training writes out; gives whether the model returns hidden states instead of logits."""
    with fused_passes(model, plan.trainer) as without_logits, ExitStack() as stack:
        yield stack.enter_context(fused_head(model)) if without_logits and not own_loss else False


def _loss(model: Any, plan: Plan, batch: Batch, fused: bool, own_loss: bool, live: LiveBytes) -> torch.Tensor:
    pairs = plan.trainer.objective is Objective.dpo  # a row is two answers
    ids = torch.zeros((batch.rows * (2 if pairs else 1), batch.tokens), dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if batch.padded:
        inputs["attention_mask"] = torch.ones_like(ids)
    if own_loss:
        return torch.as_tensor(model(labels=ids, **inputs).loss)
    labels = min(batch.labels, batch.tokens - 1)
    if plan.trainer.objective in (Objective.full_sequence, Objective.lesson):
        labels = batch.tokens - 1
    if can_skip_logits(model) and plan.trainer.objective is not Objective.lesson:
        inputs["logits_to_keep"] = labels + 1
    if fused:
        hidden_btd = model(**inputs).logits
        head = base_network(model).get_output_embeddings()
        hidden_md = hidden_btd[:, -labels - 1 : -1].reshape(-1, hidden_btd.shape[-1])
        targets = torch.zeros(hidden_md.shape[0], dtype=torch.long)
        with torch.autocast("cpu", enabled=False), live.making("logits"):
            loss: torch.Tensor = HeadLoss.apply(hidden_md.to(head.weight.dtype), head.weight, head.bias, targets)
        return loss / targets.shape[0]
    logits_btv = model(**inputs).logits
    with live.making("logits"):
        wide = logits_btv.float().flatten(0, 1)
        live.relabel(logits_btv, "logits")
        return functional.cross_entropy(wide, torch.zeros(wide.shape[0], dtype=torch.long))


class _Dequantized(torch.autograd.Function):
    """A linear layer over packed weights: they are unpacked for each product, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(x.to(weight.dtype), torch.empty_like(weight), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        [weight] = ctx.saved_tensors
        return grads[0].to(weight.dtype) @ torch.empty_like(weight), None, None


def _dequantizing(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return torch.as_tensor(_Dequantized.apply(x, module.weight, module.bias))


def _cache_bytes(config: Any, plan: Plan, batch: Batch, dtype: torch.dtype) -> int:
    """Keys and values while answers are scored; none if no metric reads answers."""
    if not plan.scoring.metrics:
        return 0
    text = config.get_text_config()
    heads = int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    generation = plan.scoring.generation
    columns = max(1, batch.tokens - batch.labels) + generation.max_new_tokens
    return 2 * generation.batch_size * columns * int(text.num_hidden_layers) * heads * size * dtype.itemsize


def _attention(query: Any, key: Any, value: Any) -> int:
    """Scores and their product with the values, as torch counts them for other kernels."""
    batch, heads, length, size = query
    return int(2 * batch * heads * length * key[2] * (size + value[3]))


def _attention_forward(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _attention(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Five products, one of which makes the scores again."""
    return _attention(query, key, value) * 5 // 2


def _product_added(added: Any, left: Any, right: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2 * left[0] * left[1] * right[1])


class _WholeModel(nullcontext[None]):
    """Says that every operation is of the whole model.

    Torch's tracker of modules hooks into the graph of each module instead. Its hooks keep what checkpointing computed
    again until Python collects garbage.
    """

    parents = frozenset({"Global"})


def counting() -> FlopCounterMode:
    """Torch's counter of operations, which lacks the attention kernel of CPUs and products that are added in place."""
    aten: Any = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten.addmm_: _product_added,
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )
    counter.mod_tracker = _WholeModel()  # type: ignore[assignment]
    return counter


def attention_flops(counter: FlopCounterMode) -> float:
    """What attention kernels have computed."""
    return float(sum(n for op, n in counter.get_flop_counts()["Global"].items() if "attention" in str(op)))
