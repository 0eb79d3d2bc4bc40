"""Partial fine-tuning: train and save some modules of the base model whole.

Each adapter trains copies, not differences, so that an optimizer's weight decay acts as in full fine-tuning. Copies of
16-bit weights are kept in float32 (PEFT's ``autocast_adapter_dtype``): a 16-bit copy loses updates smaller than its
last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig
from torch import Tensor, nn

from . import checks, peft_type, register, select
from .override import OverrideLayer, OverrideModel, OwnSelection, entries


@dataclass
class PartialConfig(OwnSelection):
    """Settings of partial fine-tuning; everything that the three choices select is trained."""

    last_layers: int | None = field(
        default=None,
        metadata={"help": "Train the last N transformer blocks (of the decoder, if there is an encoder too)."},
    )
    modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Modules to train, including everything inside them: a list of name endings or a regular "
            "expression for whole names."
        },
    )
    norms: bool = field(default=False, metadata={"help": "Train every layer norm and RMS norm."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules to train and save whole, such as a new classifier."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        register()
        self.peft_type = peft_type("PARTIAL")
        checks.raise_faults(checks.partial_faults(self))


class PartialLayer(OverrideLayer):
    """A module that runs with the active adapter's copy of its parameters; at most one adapter is active."""

    adapter_layer_names = ("partial_copies",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.partial_copies = nn.ModuleDict()

    def update_layer(self, adapter_name: str, config: PeftConfig) -> None:
        self.partial_copies[adapter_name] = nn.ParameterDict(
            {key: nn.Parameter(parameter.detach().clone()) for key, parameter in self.base_parameters().items()}
        )

    def overrides(self, names: list[str], sample: bool) -> dict[str, Tensor]:
        if len(names) > 1 or self.merged:
            raise ValueError(
                f"adapters {[*self.merged_adapters, *names]} each replace the same weights, and only one "
                "can be active: activate or merge one adapter at a time"
            )
        slots = self.base_parameters()
        return {key: copy.to(slots[key].dtype) for key, copy in entries(self.partial_copies, names[0]).items()}


class PartialModel(OverrideModel):
    """Partial fine-tuning as a PEFT tuner."""

    prefix = "partial_"
    layer_cls = PartialLayer

    def select(self, config: PartialConfig, model: nn.Module) -> set[str]:
        candidates = dict(select.holders(model))
        chosen: set[str] = set()
        if config.last_layers is not None:
            blocks = select.block_names(model)
            if not 1 <= config.last_layers <= len(blocks):
                raise ValueError(
                    f"partial.last_layers={config.last_layers} must be from 1 to {len(blocks)}, the model's number "
                    "of layers"
                )
            last = tuple(f"{name}." for name in blocks[-config.last_layers :])
            chosen |= {name for name in candidates if name.startswith(last)}
        if config.modules:
            named = {name for name in candidates if select.under(name, config.modules)}
            if not named:
                raise ValueError(
                    f"partial.modules={config.modules} matches no module with parameters; the "
                    f"model has {sorted({name.rpartition('.')[2] for name in candidates})}"
                )
            select.refuse_unmatched(config.modules, candidates, "partial.modules", "parameters")
            chosen |= named
        if config.norms:
            norms = {name for name, module in candidates.items() if select.is_norm(module)}
            if not norms:
                raise ValueError("partial.norms=true, but the model has no layer norm; set partial.modules instead")
            chosen |= norms
        select.refuse_tied(model, chosen, "partial.modules")
        select.refuse_nested(chosen, "partial.modules")
        select.refuse_integer(model, chosen, "partial")
        return chosen
