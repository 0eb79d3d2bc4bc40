"""Tuner layers that call their base layer with some parameters replaced; base weights stay untouched.

BitFit, partial fine-tuning and diff pruning differ only in how they compute the new values. Replacing the parameter,
rather than adding to the output, makes the merged model's logits bit-equal to the unmerged one's.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn


def entries(container: nn.ModuleDict, adapter_name: str) -> dict[str, Tensor]:
    """Parameter name -> tensor of one adapter, from a container of parameter or buffer dictionaries."""
    return dict(cast(Any, container[adapter_name]).items())


class TunerLayer(nn.Module, BaseTunerLayer):
    """A wrapper around ``base_layer``; subclasses hold one entry per adapter in ``adapter_layer_names``."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters: list[str] = []

    def present(self, names: Collection[str]) -> list[str]:
        """Those of the named adapters that this layer has."""
        return [name for name in names if name in self._get_available_adapters()]

    def base_parameters(self) -> dict[str, nn.Parameter]:
        """The base layer's own parameters, by name."""
        slots = self.get_base_layer()._parameters
        return {key: parameter for key, parameter in slots.items() if parameter is not None}

    def out_width(self) -> int | None:
        """Output width of a linear base layer; None for other modules."""
        base = self.get_base_layer()
        return getattr(base, "out_features", None) or getattr(base, "nf", None)  # nf: GPT-2's Conv1D

    def base_dtype_and_device(self) -> tuple[torch.dtype, torch.device]:
        """The type that the base layer computes in, float32 if it stores only integers, and its device."""
        first = next(self.get_base_layer().parameters())
        dtype = getattr(self.get_base_layer(), "compute_dtype", None) or first.dtype
        return (dtype if dtype.is_floating_point else torch.float32), first.device

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move only. PEFT also casts to the base's dtype here, which would round trained float32 weights."""
        target = device or self.base_dtype_and_device()[1]
        for container in (getattr(self, name) for name in self.adapter_layer_names + self.other_param_names):
            if adapter_name not in container:
                continue
            entry = container[adapter_name]
            tensors = [entry] if isinstance(entry, Tensor) else [*entry.parameters(), *entry.buffers()]
            for tensor in tensors:
                if not tensor.is_meta:
                    tensor.data = tensor.data.to(target)


class OverrideLayer(TunerLayer):
    """Runs the base layer with the tensors that ``overrides`` returns instead of its own parameters."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self._originals: dict[str, Tensor | None] = {}

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter that does not change the layer yet."""
        raise NotImplementedError

    def overrides(self, names: list[str], sample: bool) -> dict[str, Tensor]:
        """New values by parameter name while the adapters ``names`` are active, in the base parameter's dtype.

        ``sample``: draw random values, for methods that are stochastic in training.
        """
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = self.present(self.active_adapters)
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(*args, **kwargs)
        # Not torch.func.functional_call: it takes 26 us longer per call, and cannot replace a bias of None.
        slots = self.base_layer._parameters
        values = self.overrides(names, sample=self.training)
        originals = {key: slots[key] for key in values}
        try:
            slots.update(values)  # type: ignore[arg-type]
            return self.base_layer(*args, **kwargs)
        finally:
            slots.update(originals)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the new values into the base layer; ``unmerge`` restores the same bits.

        ``safe_merge`` raises ``ValueError`` on a non-finite value, before anything is changed.
        """
        names = self.present(check_adapters_to_merge(self, adapter_names))
        if not names:
            return
        with torch.no_grad():
            values = self.overrides(names, sample=False)
        if safe_merge and not all(torch.isfinite(value).all() for value in values.values()):
            raise ValueError(f"merging adapters {names} would write non-finite weights; the base is unchanged")
        for key, value in values.items():
            slot = self.base_layer._parameters[key]
            self._originals.setdefault(key, None if slot is None else slot.data)
            if slot is None:
                self.base_layer._parameters[key] = nn.Parameter(value, requires_grad=False)
            else:
                slot.data = value
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        for key, original in self._originals.items():
            slot = self.base_layer._parameters[key]
            if original is None or slot is None:
                self.base_layer._parameters[key] = None
            else:
                slot.data = original.to(slot.device)
        self._originals.clear()
        self.merged_adapters.clear()


class OwnSelection(PeftConfig):
    """Base of configurations whose ``modules`` names modules including everything inside them.

    PEFT's ``target_modules`` means each module alone, and PEFT stores the base's embedding with an adapter that names
    it there. So that attribute exists, because PEFT reads it, but is always None.
    """

    target_modules = None


class SelectingTuner(BaseTuner):
    """A tuner that chooses its modules by inspecting the model, not by name alone."""

    def select(self, config: Any, model: nn.Module) -> set[str]:
        """Names of the modules to wrap. Raises ``ValueError``, with the remedy, if there are none."""
        raise NotImplementedError

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:
        trained_whole = getattr(peft_config, "modules_to_save", None) or []
        self._selected = {
            name
            for name in self.select(peft_config, self.model)
            if not any(re.match(rf"(^|.*\.){saved}($|\..*)", name) for saved in trained_whole)
        }
        return peft_config

    # PEFT declares a static method; it is only ever called on an instance.
    def _check_target_module_exists(self, peft_config: PeftConfig, key: str) -> bool:  # type: ignore[override]
        return key in self._selected

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's version also copies weight and bias, which modules such as an MLP do not have, and moves the adapter
        # to the base's device, where update_layer has already created it.
        setattr(parent, child_name, new_module)


class OverrideModel(SelectingTuner):
    """Wraps each selected module in ``layer_cls``."""

    tuner_layer_cls = OverrideLayer
    layer_cls: type[OverrideLayer]

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, OverrideLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self.layer_cls(target)
        layer.update_layer(adapter_name, peft_config)
        self._replace_module(parent, target_name, layer, target)
