"""A fork of the base that computes the batches of several runs in one pass, each with its run's adapter."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.data.tokenize import IGNORED
from harness.models import base as model_base
from harness.models.base import Base
from harness.scoring.losses import can_skip_logits
from harness.training.fused.head import fused_head
from harness.training.packed.ambient import Ambient
from harness.training.packed.layers import Arrangement, LowRankTerm, NotPackable, PackedLayer, ScaleTerm, Term
from harness.training.packed.member import Batch

if TYPE_CHECKING:
    from peft import PeftModel

PREFIX = "base_model.model."  # of the base's modules within a PeftModel


class Host:
    """The base with the adapters of all runs of a pack."""

    def __init__(self, base: Base) -> None:
        self._model: Any = model_base.fork(base, private_weights=False).train()
        self._head = self._model.get_output_embeddings()
        self._arrangement = Arrangement()
        self._layers: dict[str, PackedLayer] = {}
        self._models: dict[str, PeftModel] = {}  # by run
        self._trained: dict[str, list[nn.Parameter]] = {}

    def admit(self, member: str, model: "PeftModel") -> None:
        """Take the adapter of a run; its weights stay the run's own. Nothing happens if it is here already.

        A run has another model after it ran out of memory and began again with smaller batches.

        Raises:
            NotPackable: something in it, or in the base, cannot be computed together.
        """
        if self._models.get(member) is model:
            return
        self.dismiss(member)
        self._check_base()
        terms = terms_of(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        own = {id(weight) for term in terms.values() for weight in _weights(term)}
        if any(id(parameter) not in own for parameter in trained):
            raise NotPackable("it trains weights outside of its adapter")
        layers = {name: self._layer(name) for name in terms}
        for name, term in terms.items():
            if isinstance(term, LowRankTerm) and term.dropout and layers[name].base_layer is self._head:
                raise NotPackable("it drops out at the output head, whose positions differ between batches")
        for name, term in terms.items():
            layers[name].take(member, term)
        self._models[member], self._trained[member] = model, trained

    def dismiss(self, member: str) -> None:
        """Forget a run."""
        self._models.pop(member, None)
        self._trained.pop(member, None)
        for layer in self._layers.values():
            layer.drop(member)

    def modules(self) -> Iterator[nn.Module]:
        """Those of the fork of the base."""
        return iter(self._model.modules())

    def run(self, batches: Mapping[str, Batch], states: Mapping[str, Ambient]) -> dict[str, torch.Tensor]:
        """One forward and backward pass over these runs' batches: the loss of each, whose gradients are in place.

        If it fails, no gradient and no random state has changed.

        Args:
            states: of the runs; dropout is drawn from them.

        Raises:
            NotPackable: a module gets something else than rows of the runs.
        """
        names, given = list(batches), list(batches.values())
        shapes = [tuple(batch.inputs["input_ids"].shape) for batch in given]
        rows, length = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
        device = given[0].inputs["input_ids"].device
        generators = {name: states[name].generator(device) for name in names}
        now = self._arrangement
        now.members, now.rows, now.shapes, now.generators = tuple(names), rows, shapes, generators
        kept = [int(batch.inputs["logits_to_keep"]) for batch in given]
        # From the end of the longest batch: padding that others need comes after a batch's own end.
        needed = max(length - shape[1] + keep for shape, keep in zip(shapes, kept, strict=True))
        try:
            with fused_head(self._model) if given[0].fused else nullcontext(), given[0].precision():
                logits_btv = self._model(  # with the fused head: hidden states, from which it computes losses
                    input_ids=torch.cat([_filled(batch, "input_ids", rows, length) for batch in given]),
                    attention_mask=torch.cat([_filled(batch, "attention_mask", rows, length) for batch in given]),
                    logits_to_keep=needed,
                    use_cache=False,
                ).logits
                losses = [
                    self._loss(logits_btv[at * rows :][: shape[0]], _labels(batch, shape, length, needed), batch.items)
                    for at, (batch, shape) in enumerate(zip(given, shapes, strict=True))
                ]
            trained = [weight for name in names for weight in self._trained[name]]
            grads = torch.autograd.grad(sum(losses), trained, allow_unused=True)  # type: ignore[arg-type]
        finally:
            now.members = ()
        for weight, grad in zip(trained, grads, strict=True):
            if grad is not None:  # in the weight's layout, which fused optimizers rely on
                weight.grad = grad.contiguous() if weight.grad is None else weight.grad.add_(grad)
        for name in names:
            states[name].advance(generators[name])
        return {name: loss.detach() for name, loss in zip(names, losses, strict=True)}

    def _loss(self, logits_btv: torch.Tensor, labels_bt: torch.Tensor, items: Any) -> torch.Tensor:
        loss: torch.Tensor = self._model.loss_function(
            logits=logits_btv,
            labels=None,
            vocab_size=logits_btv.shape[-1],
            num_items_in_batch=items,
            shift_labels=labels_bt,
        )
        return loss

    def _layer(self, name: str) -> PackedLayer:
        if name not in self._layers:
            parent, _, child = name.rpartition(".")
            owner = self._model.get_submodule(parent)
            self._layers[name] = PackedLayer(getattr(owner, child), self._arrangement)
            setattr(owner, child, self._layers[name])
        return self._layers[name]

    def _check_base(self) -> None:
        """Raise NotPackable for a base that drops out by itself, or computes another loss than the usual one."""
        if not can_skip_logits(self._model):
            raise NotPackable("this model computes all of its logits, or a loss of its own")
        dropouts = [module.p for module in self._model.modules() if isinstance(module, nn.Dropout)]
        dropouts += [getattr(self._model.config.get_text_config(), "attention_dropout", 0) or 0]
        if any(dropouts):
            raise NotPackable(f"the base has a dropout of its own ({max(dropouts):g}), drawn for all rows together")


def terms_of(model: "PeftModel") -> dict[str, Term]:
    """The adapter's term at each target module, by the module's name in the base.

    Raises:
        NotPackable: some module is adapted in a way that is not computed here.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: dict[str, Term] = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            found[name.removeprefix(PREFIX)] = _term(module, str(model.active_adapter))
    if not found:
        raise NotPackable("it adapts no module")
    return found


def _term(layer: Any, adapter: str) -> Term:
    from peft.tuners import ia3, lora

    if layer.disable_adapters or layer.merged or list(layer.active_adapters) != [adapter]:
        raise NotPackable("its adapter is merged, disabled or one of several")
    if type(layer) is lora.layer.Linear:
        a, b = layer.lora_A[adapter], layer.lora_B[adapter]
        if adapter in layer.lora_variant or a.bias is not None or b.bias is not None:
            raise NotPackable("it is a variant of LoRA with a forward pass of its own")
        return LowRankTerm(
            a.weight, b.weight, float(layer.scaling[adapter]), getattr(layer.lora_dropout[adapter], "p", 0.0)
        )
    if type(layer) is ia3.layer.Linear:
        return ScaleTerm(layer.ia3_l[adapter], layer.is_feedforward)
    raise NotPackable(f"it adapts a {type(layer.get_base_layer()).__name__} by a {type(layer).__module__} layer")


def _weights(term: Term) -> Sequence[nn.Parameter]:
    return (term.a, term.b) if isinstance(term, LowRankTerm) else (term.scale,)


def _filled(batch: Batch, name: str, rows: int, length: int) -> torch.Tensor:
    """The batch's tensor (b, t) with its first row repeated for missing rows, and padded on the right.

    Not empty rows: attention over nothing is not a number.
    """
    own = batch.inputs[name]
    if own.shape[0] < rows:
        own = torch.cat([own, own[:1].expand(rows - own.shape[0], -1)])
    # Attention does not see what stands there, whichever token it is.
    return nn.functional.pad(own, (0, length - own.shape[1]), value=0)


def _labels(batch: Batch, shape: tuple[int, int], length: int, needed: int) -> torch.Tensor:
    """What the last ``needed`` positions of the stacked batch should predict, (b, needed), in this run's rows."""
    own = batch.inputs["shift_labels"]
    behind = length - shape[1]
    return nn.functional.pad(own, (needed - behind - own.shape[1], behind), value=IGNORED)
