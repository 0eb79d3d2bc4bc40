"""Diff pruning: learn a sparse difference to the base weights (Guo et al. 2021, arXiv:2012.07463).

Three stages, as in the paper:

1. Train ``get_peft_model(model, DiffPruningConfig())``. Two parameters are trained per base weight
   (difference and gate), which takes more memory than full fine-tuning; the saving is in what is stored.
2. ``model.base_model.project()`` keeps the ``target_sparsity`` largest differences and drops the gates.
3. ``project(trainable=True)`` instead, with a new optimizer, continues training with the positions fixed.
   ``project_step`` tells a trainer when.

Saved before stage 2, a checkpoint is dense and training can resume from it; saved after, it holds 4 bytes of index and
4 bytes of value per nonzero.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn

from . import select
from .diff_layer import DiffPruningConfig, DiffPruningLayer
from .override import OverrideModel, entries


@dataclass(frozen=True)
class DiffReport:
    """What projection kept."""

    targeted: int  # base parameters that have a difference
    nonzeros: int
    sparsity: float  # nonzeros / targeted; target_sparsity is its upper bound
    base_share: float  # nonzeros / all parameters of the base model, 0 to 1
    bytes: int  # indices and values as saved, without file headers

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


class DiffPruningModel(OverrideModel):
    """Diff pruning as a PEFT tuner."""

    prefix = "diffprune_"
    tuner_layer_cls = DiffPruningLayer
    layer_cls = DiffPruningLayer
    peft_config: dict[str, Any]

    def select(self, config: DiffPruningConfig, model: nn.Module) -> set[str]:
        targets = config.modules
        if targets is None or targets == "all-linear":
            chosen = set(select.linear_layers(model))
        elif targets == "all":
            chosen = {name for name, _ in select.holders(model)}
        else:
            places = [name for name, _ in select.holders(model)]
            chosen = {name for name in places if select.under(name, targets)}
            if chosen:
                select.refuse_unmatched(targets, places, "diff_pruning.modules", "parameters")
        if not chosen:
            raise ValueError(
                f"diff_pruning.modules={targets} matches no module with parameters; the model has "
                f"{sorted({name.rpartition('.')[2] for name, _ in select.holders(model)})}"
            )
        select.refuse_tied(model, chosen, f"diff_pruning.modules={targets}")
        select.refuse_nested(chosen, "diff_pruning.modules")
        select.refuse_integer(model, chosen, "diff_pruning")
        return chosen

    def _post_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        # A hook, not forward(): PeftModel without a task type calls the inner model past its tuner.
        self._penalty_hook = model.register_forward_hook(self._add_penalty)

    def _add_penalty(self, model: nn.Module, args: Any, outputs: Any) -> Any:
        """In training mode add ``penalty()`` to ``outputs.loss``; in evaluation never.

        A trainer that computes the loss from logits itself passes no labels, gets no loss, and adds ``penalty()`` to
        its own.
        """
        if model.training and isinstance(getattr(outputs, "loss", None), Tensor):
            outputs.loss = outputs.loss + self.penalty()
        return outputs

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        model: Any = super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)
        self._penalty_hook.remove()
        return model

    def layers_of(self, adapter_name: str) -> dict[str, DiffPruningLayer]:
        """The layers that an adapter changes, by name. Raises ``ValueError`` for an unknown adapter."""
        layers = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, DiffPruningLayer) and module.present([adapter_name])
        }
        if not layers:
            raise ValueError(f"no adapter {adapter_name!r}; this model has {list(self.peft_config)}")
        return layers

    def penalty(self) -> Tensor | float:
        """l0_weight times the expected number of open gates, over active adapters; 0.0 if there are none."""
        total: Tensor | float = 0.0
        for name in self.active_adapters:
            for layer in self.layers_of(name).values():
                if layer.is_dense(name) and not layer.disable_adapters:
                    count = layer.expected_l0(name)
                    weighted = self.peft_config[name].l0_weight * count
                    total = total + (weighted.to(total.device) if isinstance(total, Tensor) else weighted)
        return total

    @torch.no_grad()
    def project(
        self,
        adapter_name: str = "default",
        target_sparsity: float | None = None,
        trainable: bool = False,
    ) -> DiffReport:
        """Keep the largest differences of the whole model, drop the rest and the gates (section 3.2).

        ``target_sparsity`` (default: the configuration's) bounds the share of targeted parameters kept.
        ``trainable``: continue training the kept values with their positions fixed, with a new optimizer, because the
        parameters are new. Raises ``ValueError`` if the adapter is already projected, or merged.
        """
        config = self.peft_config[adapter_name]
        layers = self.layers_of(adapter_name)
        if config.projected or any(layer.merged for layer in layers.values()):
            state = "projected" if config.projected else "merged"
            raise ValueError(f"adapter {adapter_name!r} is already {state}; project it once, and unmerged")
        share = config.target_sparsity if target_sparsity is None else target_sparsity
        masks = _largest(
            {
                (name, key): diff.flatten().abs()
                for name, layer in layers.items()
                for key, diff in layer.dense(adapter_name, sample=False).items()
            },
            share,
        )
        for name, layer in layers.items():
            layer.project(adapter_name, {key: mask for (at, key), mask in masks.items() if at == name})
            layer.diffprune_values[adapter_name].requires_grad_(trainable)
        config.projected = True
        config.target_sparsity = share
        return self.sparsity_report(adapter_name)

    def places(self, adapter_name: str = "default") -> dict[str, Tensor]:
        """Flat indices of the kept differences of a projected adapter, by layer and parameter."""
        return {
            f"{name}.{key}": index
            for name, layer in self.layers_of(adapter_name).items()
            for key, index in entries(layer.diffprune_indices, adapter_name).items()
        }

    def fix_places(self, adapter_name: str, places: dict[str, Tensor]) -> None:
        """Make a dense adapter sparse at the ``places`` of another one, its values zero, as after ``project``."""
        for name, layer in self.layers_of(adapter_name).items():
            own = {key: places[f"{name}.{key}"] for key in layer.base_parameters()}
            layer.allocate_sparse(adapter_name, own)
        self.peft_config[adapter_name].projected = True

    def sparsity_report(self, adapter_name: str = "default") -> DiffReport:
        """What a projected adapter stores. Raises ``ValueError`` before projection."""
        layers = self.layers_of(adapter_name)
        if not self.peft_config[adapter_name].projected:
            raise ValueError(f"adapter {adapter_name!r} is dense until project() is called")
        targeted = nonzeros = size = 0
        for layer in layers.values():
            targeted += sum(slot.numel() for slot in layer.base_parameters().values())
            indices = entries(layer.diffprune_indices, adapter_name)
            for key, values in entries(layer.diffprune_values, adapter_name).items():
                index = indices[key]
                nonzeros += int(torch.count_nonzero(values))
                size += values.numel() * values.element_size() + index.numel() * index.element_size()
        base = sum(p.numel() for name, p in self.model.named_parameters() if "diffprune_" not in name)
        return DiffReport(targeted, nonzeros, nonzeros / targeted, nonzeros / base, size)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Before PEFT copies values in, make the layers sparse with the sizes that the checkpoint has.

        Raises ``ValueError`` for a dense checkpoint and an adapter that has been projected.
        """
        sparse = any(".diffprune_indices." in key for key in state_dict)
        if config.projected and not sparse:
            raise ValueError(
                f"adapter {adapter_name!r} is projected and the checkpoint is from before projection; load it "
                "into a new model"
            )
        config.projected = sparse
        for name, layer in model.named_modules():
            if not sparse or not isinstance(layer, DiffPruningLayer) or not layer.present([adapter_name]):
                continue
            held = layer.diffprune_diff if layer.is_dense(adapter_name) else layer.diffprune_values
            trainable = any(p.requires_grad for p in held[adapter_name].parameters())
            stem = f"base_model.model.{name.removeprefix('base_model.model.')}.diffprune_indices."
            places = {key.removeprefix(stem): v for key, v in state_dict.items() if key.startswith(stem)}
            layer.allocate_sparse(adapter_name, places)
            layer.diffprune_values[adapter_name].requires_grad_(trainable)
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)


def _largest(sizes: dict[tuple[str, str], Tensor], share: float) -> dict[tuple[str, str], Tensor]:
    """Masks of the ``floor(share * total)`` largest entries over all tensors together; zeros never count."""
    flat = torch.cat([size.float().cpu() for size in sizes.values()])
    count = min(int(share * flat.numel() + 1e-9), int(torch.count_nonzero(flat)))
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[flat.topk(count).indices] = True
    parts = mask.split([size.numel() for size in sizes.values()])
    return {at: part.to(size.device) for (at, size), part in zip(sizes.items(), parts, strict=True)}
