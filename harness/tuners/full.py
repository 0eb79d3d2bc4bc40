"""Full fine-tuning behind PEFT's interface, so that it is saved, loaded and scored like any method.

Design: the base model's own weights are trained. A copy per adapter would double the memory of the method that needs
the most already. It follows that:

- ``save_pretrained`` writes every parameter (tied ones once); ``PeftModel.from_pretrained`` loads them into
  any base model of the same architecture, and refuses a checkpoint whose keys differ.
- ``disable_adapter()``, ``unload()`` and ``delete_adapter()`` need the base weights, which training
  overwrites: they need ``keep_base=true``, which keeps a copy in CPU memory, and raise without it.
- There is one adapter per model, and it is always merged: ``merge_and_unload()`` returns the trained model.
- Weights keep the dtype that the model was loaded in; ``autocast_adapter_dtype`` has no effect. Training
  16-bit weights in place loses updates below their last bit: load the model in float32 for full fine-tuning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from . import peft_type, register


@dataclass
class FullConfig(PeftConfig):
    """Settings of full fine-tuning."""

    keep_base: bool = field(
        default=False,
        metadata={"help": "Keep the base weights in CPU memory, so that the adapter can be disabled."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        register()
        self.peft_type = peft_type("FULL")


class FullState(nn.Module, BaseTunerLayer):
    """The one adapter: PEFT asks it whether the adapter is enabled, and it swaps the weights.

    Has no parameters. ``model`` is kept out of the module tree, which already contains it.
    """

    def __init__(self, model: nn.Module, adapter_name: str, keep_base: bool) -> None:
        super().__init__()
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self._outside = (model,)
        self._ties = _ties(model)
        self._tuned: dict[str, tuple[Tensor, bool]] = {}
        self._base: dict[str, Tensor] | None = None
        if keep_base:
            self._base = {
                # On the meta device (counting without weights) there is nothing to copy.
                name: torch.empty_like(p) if p.is_meta else p.detach().to("cpu", copy=True)
                for name, p in model.named_parameters()
            }

    def _get_available_adapters(self) -> set[str]:
        return set(self.active_adapters)

    def enable_adapters(self, enabled: bool) -> None:
        """Put the tuned or the base weights into the model. Raises ``RuntimeError`` without a base copy."""
        if enabled != self._disable_adapters:
            return
        model = self._outside[0]
        if not enabled:
            if self._base is None:
                raise RuntimeError(
                    "full fine-tuning trained the base weights in place and kept no copy; set "
                    "full.keep_base=true to keep a copy in CPU memory, or load the base model again"
                )
            for name, parameter in model.named_parameters():
                self._tuned[name] = (parameter.data, parameter.requires_grad)
                parameter.data = self._base[name].to(parameter.device)
                parameter.requires_grad_(False)
        else:
            for name, parameter in model.named_parameters():
                parameter.data, trainable = self._tuned[name]
                parameter.requires_grad_(trainable)
            self._tuned.clear()
        self._disable_adapters = not enabled

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Restore ties: PEFT calls this after a load with ``low_cpu_mem_usage``, which replaces parameters."""
        model = self._outside[0]
        for first, *others in self._ties:
            parameter = model.get_parameter(first)
            for name in others:
                owner, _, key = name.rpartition(".")
                model.get_submodule(owner)._parameters[key] = parameter


class FullModel(BaseTuner):
    """Full fine-tuning as a PEFT tuner. Injects nothing."""

    prefix = "full_"
    tuner_layer_cls = FullState
    peft_config: dict[str, Any]

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Make every parameter trainable. Raises ``ValueError`` for a second adapter or a quantized base."""
        if len(self.peft_config) > 1:
            raise ValueError(
                f"adapter {adapter_name!r}: full fine-tuning trains the base weights themselves, so a model "
                "takes one adapter; load the base model again for another"
            )
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                raise ValueError(
                    f"full fine-tuning cannot train {name}, which is {parameter.dtype} (quantized); load "
                    "the base model unquantized, or choose a method that keeps it frozen"
                )
        config = self.peft_config[adapter_name]
        self.full_state = FullState(model, adapter_name, config.keep_base)
        self.set_adapter(adapter_name, inference_mode=config.inference_mode)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        self._require(names)
        self.set_requires_grad(names, not inference_mode)
        self.active_adapter = adapter_name

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        self.model.requires_grad_(requires_grad)

    def enable_adapter_layers(self) -> None:
        self.full_state.enable_adapters(True)

    def disable_adapter_layers(self) -> None:
        self.full_state.enable_adapters(False)

    def delete_adapter(self, adapter_name: str) -> None:
        """Restore the base weights. Raises ``RuntimeError`` without ``keep_base``."""
        self._require([adapter_name])
        self.unload()
        del self.peft_config[adapter_name]
        self.active_adapter = []

    def unload(self) -> nn.Module:
        """The base model, with its own weights. Raises ``RuntimeError`` without ``keep_base``."""
        self.full_state.enable_adapters(False)
        return self.model

    def merge_and_unload(
        self,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        """The trained model: its weights are the adapter."""
        self.full_state.enable_adapters(True)
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        return self.model

    def _require(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self.peft_config]
        if unknown:
            raise ValueError(f"no adapter {unknown}; this model has {list(self.peft_config)}")

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Nothing to cast: the adapter is the model, whose dtype is the model's setting."""

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("full fine-tuning replaces no module; this is called by no path of PEFT")

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """Every entry of the model, tied ones under their first name only."""
        state = next((m for m in model.modules() if isinstance(m, FullState)), None)
        if state is not None and state.disable_adapters:
            raise RuntimeError("the adapter is disabled, so these are the base weights; save outside disable_adapter()")
        again = {name for _, *others in _ties(model) for name in others}
        return {key: value for key, value in state_dict.items() if key not in again}

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return key

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Keys are those of the model. Raises ``ValueError`` if checkpoint and model differ in any."""
        again = {name for _, *others in _ties(model) for name in others}
        expected = set(model.state_dict()) - again
        missing, stray = sorted(expected - set(state_dict)), sorted(set(state_dict) - expected - again)
        if missing or stray:
            raise ValueError(
                f"the full checkpoint is not of this model: {len(missing)} parameters missing {missing[:3]}, "
                f"{len(stray)} unknown {stray[:3]}; load it into the base model it was trained from"
            )
        return state_dict


def _ties(model: nn.Module) -> list[list[str]]:
    """Groups of names that share one parameter."""
    names = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [group for group in names.values() if len(group) > 1]
