"""Bottleneck adapters: small two-layer networks inserted into a frozen transformer.

Three placements, each as in its paper:

- ``houlsby``: two per layer, on the output projections of attention and MLP, before the residual addition
  (Houlsby et al. 2019, arXiv:1902.00751, section 2.1).
- ``pfeiffer``: one per layer, on the output projection of the MLP, as in the figures of Pfeiffer et al. 2021
  (arXiv:2005.00247). A variant of AdapterHub's ``SeqBnConfig`` (its default ``original_ln_before=True``), whose
  adapter reads the MLP's output plus the residual: this one reads the output alone, like its ``houlsby``. Sizes and
  the residual around the adapter are the same. With ``adapter_layer_norm`` it is the adapter of Lin et al. 2020
  (arXiv:2004.03829), the LoRA paper's "Adapter-L".
- ``parallel``: one per layer, from the MLP's input to its output, scaled (He et al. 2022, arXiv:2110.04366). The input
  is the one after the norm, as the MLP's; AdapterHub's ``ParBnConfig`` reads the residual before the norm.

All start as the base model: the up projection is zero, as in AdapterHub's ``mam_adapter``; its ``houlsby`` draws it
from a normal distribution of the same width as the down projection.

Per adapter, width d and bottleneck b: 2db + b + d parameters, and 2d more for its layer norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn

from harness.errors import one_of

from . import checks, peft_type, register, select
from .checks import PLACEMENTS
from .override import SelectingTuner, TunerLayer
from .partial import PartialLayer

_LLAMA = ("self_attn.o_proj", "mlp.down_proj", "mlp")
# model_type -> output projection of attention, output projection of the MLP, the MLP itself (None: no module)
LOCATIONS: dict[str, tuple[str, str, str | None]] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "phi3", "smollm3"),
        _LLAMA,
    ),
    **dict.fromkeys(("cohere", "olmo", "olmo2", "granite", "stablelm"), _LLAMA),
    "gpt2": ("attn.c_proj", "mlp.c_proj", "mlp"),
    "gpt_neo": ("attention.out_proj", "mlp.c_proj", "mlp"),
    "gptj": ("attn.out_proj", "mlp.fc_out", "mlp"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h", "mlp"),
    "opt": ("self_attn.out_proj", "fc2", None),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h", "mlp"),
    "falcon": ("self_attention.dense", "mlp.dense_4h_to_h", "mlp"),
    "phi": ("self_attn.dense", "mlp.fc2", "mlp"),
    "starcoder2": ("self_attn.o_proj", "mlp.c_proj", "mlp"),
    "t5": ("SelfAttention.o", "DenseReluDense.wo", "DenseReluDense"),
    "mt5": ("SelfAttention.o", "DenseReluDense.wo", "DenseReluDense"),
}


@dataclass
class AdapterConfig(PeftConfig):
    """Settings of bottleneck adapters."""

    bottleneck_size: int | None = field(
        default=None, metadata={"help": "Width b of the bottleneck; set this or reduction_factor."}
    )
    reduction_factor: int | None = field(
        default=None, metadata={"help": "Width of the adapted layer divided by this gives the bottleneck."}
    )
    placement: str = field(default="houlsby", metadata={"help": f"One of {', '.join(PLACEMENTS)}."})
    activation: str = field(
        default="gelu",
        metadata={"help": "Nonlinearity, by its name in transformers (gelu, relu, silu, ...)."},
    )
    scaling: float | None = field(
        default=None,
        metadata={"help": "Factor on the adapter's output. None: 4 if parallel (He et al. 2022), else 1."},
    )
    init_std: float = field(
        default=0.01,
        metadata={"help": "Standard deviation of the down projection; the up projection starts at zero."},
    )
    adapter_layer_norm: bool = field(
        default=False, metadata={"help": "Normalize each adapter's input (Lin et al. 2020)."}
    )
    train_layer_norms: bool = field(
        default=False,
        metadata={"help": "Train the model's own layer norms beside the adapters, as Houlsby et al. do."},
    )
    target_modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Modules to adapt: a list of name endings or a regular expression for whole names. None: "
            "by model type and placement. Their output (parallel: input and output) is the hidden state."
        },
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules to train and save whole, such as a new classifier."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        register()
        self.peft_type = peft_type("ADAPTER")
        checks.raise_faults(self._faults())

    def _faults(self) -> Iterator[str]:
        from transformers.activations import ACT2FN

        yield from checks.adapter_faults(self)
        yield from one_of("adapter.activation", self.activation, tuple(sorted(ACT2FN)))

    def bottleneck(self, width: int) -> int:
        """Bottleneck size for a layer of this width."""
        if self.bottleneck_size is not None:
            return self.bottleneck_size
        assert self.reduction_factor is not None
        if self.reduction_factor > width:
            raise ValueError(
                f"adapter.reduction_factor={self.reduction_factor} exceeds the width {width} of the adapted "
                "layer; lower it"
            )
        return width // self.reduction_factor


class Bottleneck(nn.Module):
    """up(activation(down(norm(x)))), times the scaling; zero at the start."""

    def __init__(self, width: int, config: AdapterConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        size = config.bottleneck(width)
        self.norm = nn.LayerNorm(width, dtype=dtype, device=device) if config.adapter_layer_norm else None
        self.down = nn.Linear(width, size, dtype=dtype, device=device)
        self.activation = ACT2FN[config.activation]
        self.up = nn.Linear(size, width, dtype=dtype, device=device)
        default = 4.0 if config.placement == "parallel" else 1.0
        self.scaling = default if config.scaling is None else config.scaling
        nn.init.normal_(self.down.weight, std=config.init_std)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_btd: Tensor) -> Tensor:
        """What the adapter adds to the hidden state, (b, t, d), in the input's dtype; computed in the adapter's own."""
        x = hidden_btd.to(self.down.weight.dtype)
        x = x if self.norm is None else self.norm(x)
        return (self.up(self.activation(self.down(x))) * self.scaling).to(hidden_btd.dtype)


class AdapterLayer(TunerLayer):
    """Adds each active adapter to the output of the wrapped module: one after the other, or in parallel."""

    adapter_layer_names = ("bottleneck_modules",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.bottleneck_modules = nn.ModuleDict()
        self._parallel: dict[str, bool] = {}

    def update_layer(self, adapter_name: str, config: AdapterConfig, width: int) -> None:
        dtype, device = self.base_dtype_and_device()
        self.bottleneck_modules[adapter_name] = Bottleneck(width, config, dtype, device)
        self._parallel[adapter_name] = config.placement == "parallel"

    def forward(self, hidden_btd: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = self.base_layer(hidden_btd, *args, **kwargs)
        if self.disable_adapters:
            return result
        # Some MLPs return a tuple whose first entry is the hidden state.
        first, rest = (result[0], result[1:]) if isinstance(result, tuple) else (result, None)
        for name in self.present(self.active_adapters):
            source = hidden_btd if self._parallel[name] else first
            first = first + self.bottleneck_modules[name](source).to(first.dtype)
        return first if rest is None else (first, *rest)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError(_NO_MERGE)


_NO_MERGE = (
    "bottleneck adapters are nonlinear and cannot be merged into the base weights; keep the adapter "
    "separate, or call unload() for the base model"
)


class AdapterModel(SelectingTuner):
    """Bottleneck adapters as a PEFT tuner."""

    prefix = "bottleneck_"
    tuner_layer_cls = TunerLayer

    def select(self, config: AdapterConfig, model: nn.Module) -> set[str]:
        targets = config.target_modules
        if targets is None:
            targets = _default_targets(getattr(model.config, "model_type", "unknown"), config.placement)
        wrapped = {name for name, module in model.named_modules() if isinstance(module, TunerLayer)}
        # A wrapper adds ".base_layer" to the names inside it; the adapters in it are never targets.
        names = {
            name.replace(".base_layer", "")
            for name, _ in model.named_modules()
            if ".bottleneck_modules" not in name and ".partial_copies" not in name
        }
        chosen = {name for name in names if name and select.matches(name, targets)}
        if not chosen:
            raise ValueError(f"adapter.target_modules={targets} matches no module of {type(model).__name__}")
        select.refuse_unmatched(targets, chosen, "adapter.target_modules", "that name")
        self._norms = set()
        if config.train_layer_norms:
            self._norms = {name for name, module in select.holders(model) if select.is_norm(module)} - chosen
            select.refuse_integer(model, self._norms, "adapter.train_layer_norms")
        select.refuse_nested(chosen | self._norms | wrapped, "adapter.target_modules")
        return chosen | self._norms

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        is_norm = current_key in self._norms
        layer = target
        if not isinstance(layer, TunerLayer):
            layer = PartialLayer(target) if is_norm else AdapterLayer(target)
        if isinstance(layer, PartialLayer):
            layer.update_layer(adapter_name, peft_config)
        elif isinstance(layer, AdapterLayer):
            layer.update_layer(adapter_name, peft_config, layer.out_width() or self._hidden_size())
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _hidden_size(self) -> int:
        return select.text_config(self.model).hidden_size

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT looks for the adapter's name at the end of a key only; here a whole module hangs below it.
        inner = f".bottleneck_modules.{adapter_name}."
        if inner in key:
            return key.replace(inner, ".bottleneck_modules.", 1)
        return super()._remove_adapter_name_from_key(key, adapter_name)

    def _check_merge_allowed(self) -> None:
        raise ValueError(_NO_MERGE)


def _default_targets(model_type: str, placement: str) -> list[str]:
    """Name endings of the modules that ``placement`` adapts in this architecture."""
    if model_type not in LOCATIONS:
        raise ValueError(
            f"no default places for adapters in model_type={model_type} (known: "
            f"{', '.join(sorted(LOCATIONS))}); set adapter.target_modules"
        )
    attention, mlp_output, mlp = LOCATIONS[model_type]
    if placement == "parallel":
        if mlp is None:
            raise ValueError(
                "adapter.placement=parallel needs the MLP as one module, which "
                f"model_type={model_type} lacks; choose houlsby or pfeiffer"
            )
        return [mlp]
    return [attention, mlp_output] if placement == "houlsby" else [mlp_output]
