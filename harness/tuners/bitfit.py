"""BitFit: train the biases only (Ben Zaken et al. 2022, arXiv:2106.10199).

Each adapter holds a difference to every bias, starting at zero, so that the base stays unchanged, one base can have
several adapters, and merging adds the difference to the bias.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from . import peft_type, register, select
from .override import OverrideLayer, OverrideModel, OwnSelection


@dataclass
class BitFitConfig(OwnSelection):
    """Settings of BitFit."""

    modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Modules whose biases are trained, including everything inside them: a list of name endings "
            "or a regular expression for whole names. None: every bias of the model. The paper's smaller "
            "variant takes those of the query and of the MLP's first layer (b_q and b_m2)."
        },
    )
    add_missing: bool = field(
        default=False,
        metadata={"help": "Give linear layers without a bias one that starts at zero (except the output head)."},
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules to train and save whole, such as a new classifier."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        register()
        self.peft_type = peft_type("BITFIT")


class BitFitLayer(OverrideLayer):
    """A module whose bias is the base's plus the sum of the active adapters' differences."""

    adapter_layer_names = ("bitfit_bias",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.bitfit_bias = nn.ParameterDict()

    def update_layer(self, adapter_name: str, config: BitFitConfig) -> None:
        bias = self.base_layer._parameters["bias"]
        if bias is not None:
            zeros = torch.zeros_like(bias)
        else:
            dtype, device = self.base_dtype_and_device()
            width = self.out_width()
            assert width is not None  # select() takes only linear layers among those without a bias
            zeros = torch.zeros(width, dtype=dtype, device=device)
        self.bitfit_bias[adapter_name] = nn.Parameter(zeros)

    def overrides(self, names: list[str], sample: bool) -> dict[str, Tensor]:
        bias = self.base_layer._parameters["bias"]
        delta = torch.stack([self.bitfit_bias[name] for name in names]).sum(0)
        if bias is None:
            return {"bias": delta.to(self.base_dtype_and_device()[0])}
        return {"bias": (bias.to(delta.dtype) + delta).to(bias.dtype)}


class BitFitModel(OverrideModel):
    """BitFit as a PEFT tuner."""

    prefix = "bitfit_"
    layer_cls = BitFitLayer

    def select(self, config: BitFitConfig, model: nn.Module) -> set[str]:
        candidates = {name: module for name, module in select.holders(model) if "bias" in module._parameters}
        if not config.add_missing:
            candidates = {name: module for name, module in candidates.items() if module.bias is not None}
        else:
            linear = select.linear_layers(model)
            candidates = {
                name: module for name, module in candidates.items() if module.bias is not None or name in linear
            }
        if not candidates:
            raise ValueError(
                f"bitfit has nothing to train: {type(model).__name__} has no biases; "
                "bitfit.add_missing=true gives its linear layers biases that start at zero"
            )
        targets = config.modules
        chosen = {name for name in candidates if targets is None or select.under(name, targets)}
        if not chosen:
            raise ValueError(
                f"bitfit.modules={targets} matches no module with a bias; the model has "
                f"{sorted({name.rpartition('.')[2] for name in candidates})}; choose among these, or set "
                "bitfit.add_missing=true"
            )
        select.refuse_unmatched(targets, candidates, "bitfit.modules", "a bias")
        select.refuse_nested(chosen, "bitfit.modules")
        return chosen

    def _check_merge_allowed(self) -> None:
        super()._check_merge_allowed()
        layers = [module for module in self.model.modules() if isinstance(module, BitFitLayer)]
        if any(layer.base_layer._parameters["bias"] is None for layer in layers):
            warnings.warn(
                "merging BitFit creates biases that this architecture's configuration does not declare: the "
                "merged model works in this process, but from_pretrained would drop them; to keep the "
                "result, save the adapter instead",
                stacklevel=3,
            )
