"""The layer of diff pruning: base weights plus a difference, gated while training, sparse afterwards.

Notation as in Guo et al. 2021 (arXiv:2012.07463, section 3): w is the difference, z in [0, 1] its gate, alpha
the gate's location; the layer computes with base + z * w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from . import checks, peft_type, register
from .override import OverrideLayer, OwnSelection, entries


@dataclass
class DiffPruningConfig(OwnSelection):
    """Settings of diff pruning; defaults are those of the paper's published code."""

    modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Modules that get a difference, including everything inside them: a list of name endings, a "
            "regular expression, 'all-linear' (every linear layer but the output head; None means this) or "
            "'all' (every module with parameters, as in the paper)."
        },
    )
    target_sparsity: float = field(
        default=0.005, metadata={"help": "Share of the targeted parameters that project() keeps."}
    )
    l0_weight: float = field(
        default=1.25e-7, metadata={"help": "Factor lambda on the expected number of open gates (a sum)."}
    )
    structured: bool = field(
        default=True,
        metadata={"help": "One more gate per weight matrix or bias vector (section 3.3)."},
    )
    alpha_init: float = field(
        default=5.0, metadata={"help": "Gate location at the start; 5 opens 99.3 % of the gates."}
    )
    gate_speed: float = field(
        default=100.0,
        metadata={
            "help": "Under Adam, gates move this many times as fast as the learning rate. The paper's code gives "
            "them an optimizer of their own at 0.1; this does it with one optimizer."
        },
    )
    stretch_lower: float = field(default=-1.5, metadata={"help": "Hard-concrete stretch l, below 0."})
    stretch_upper: float = field(default=1.5, metadata={"help": "Hard-concrete stretch r, above 1."})
    projected: bool = field(
        default=False, metadata={"help": "Whether the adapter is sparse. Set by project(), not by hand."}
    )
    project_step: int | None = field(
        default=None,
        metadata={
            "help": "Optimizer step after which a trainer projects, to train only the kept differences from then on "
            "(section 3.2). None: project after training."
        },
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules to train and save whole, such as a new classifier."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        register()
        self.peft_type = peft_type("DIFF_PRUNING")
        checks.raise_faults(
            [*checks.diff_pruning_faults(self), *checks.above("diff_pruning.gate_speed", self.gate_speed, 0)]
        )


def hard_concrete(alpha: Tensor, lower: float, upper: float, sample: bool) -> Tensor:
    """Gates in [0, 1], exact zeros and ones included (Louizos et al. 2018, arXiv:1712.01312, section 2.3).

    ``sample=False`` gives their deterministic gate for test time, so that evaluation is reproducible.
    """
    if not sample:
        soft = torch.sigmoid(alpha)
    else:
        uniform = torch.rand_like(alpha).clamp_(1e-4, 1 - 1e-4)
        soft = torch.sigmoid(torch.logit(uniform) + alpha)
    return (soft * (upper - lower) + lower).clamp(0, 1)


class DiffPruningLayer(OverrideLayer):
    """A module whose parameters each get a difference.

    An adapter is dense (``diff``, ``gate``, ``group``) until it is projected, then sparse (``indices`` into
    the flattened parameter, ``values``).
    """

    adapter_layer_names = ("diffprune_diff", "diffprune_gate", "diffprune_group", "diffprune_values")
    other_param_names = ("diffprune_indices",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.diffprune_diff = nn.ModuleDict()
        self.diffprune_gate = nn.ModuleDict()
        self.diffprune_group = nn.ModuleDict()
        self.diffprune_values = nn.ModuleDict()
        self.diffprune_indices = nn.ModuleDict()
        self._config: dict[str, DiffPruningConfig] = {}

    def update_layer(self, adapter_name: str, config: DiffPruningConfig) -> None:
        self._config[adapter_name] = config
        if config.projected:
            self.allocate_sparse(adapter_name, {})
            return
        slots = self.base_parameters()
        self.diffprune_diff[adapter_name] = nn.ParameterDict(
            {key: nn.Parameter(torch.zeros_like(slot)) for key, slot in slots.items()}
        )
        self.diffprune_gate[adapter_name] = nn.ParameterDict(
            {key: nn.Parameter(torch.zeros_like(slot)) for key, slot in slots.items()}
        )
        if config.structured:
            self.diffprune_group[adapter_name] = nn.ParameterDict(
                {key: nn.Parameter(slot.new_zeros(1)) for key, slot in slots.items()}
            )

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        self._config.pop(adapter_name, None)

    def is_dense(self, adapter_name: str) -> bool:
        """Whether the adapter is on this layer and has not been projected."""
        return adapter_name in self.diffprune_diff

    def _alpha(self, stored: Tensor, config: DiffPruningConfig) -> Tensor:
        # Stored as a scaled offset, so that one learning rate serves both: see DiffPruningConfig.gate_speed.
        return config.alpha_init + config.gate_speed * stored

    def dense(self, adapter_name: str, sample: bool) -> dict[str, Tensor]:
        """The difference z * w of each parameter, in the adapter's dtype."""
        config = self._config[adapter_name]
        result = {}
        for key, diff in entries(self.diffprune_diff, adapter_name).items():
            alpha = self._alpha(entries(self.diffprune_gate, adapter_name)[key], config)
            gate = hard_concrete(alpha, config.stretch_lower, config.stretch_upper, sample)
            if config.structured:
                group = self._alpha(entries(self.diffprune_group, adapter_name)[key], config)
                gate = gate * hard_concrete(group, config.stretch_lower, config.stretch_upper, sample)
            result[key] = gate * diff
        return result

    def expected_l0(self, adapter_name: str) -> Tensor:
        """Expected number of open gates (section 3.1; structured: section 3.3), a scalar."""
        config = self._config[adapter_name]
        shift = math.log(-config.stretch_lower / config.stretch_upper)
        total = None
        for key, stored in entries(self.diffprune_gate, adapter_name).items():
            count = torch.sigmoid(self._alpha(stored, config) - shift).sum()
            if config.structured:
                group = self._alpha(entries(self.diffprune_group, adapter_name)[key], config)
                count = count * torch.sigmoid(group - shift).squeeze()
            total = count if total is None else total + count
        assert total is not None
        return total

    def overrides(self, names: list[str], sample: bool) -> dict[str, Tensor]:
        slots = self.base_parameters()
        sums: dict[str, Tensor] = {}
        for name in names:
            if self.is_dense(name):
                for key, diff in self.dense(name, sample).items():
                    sums[key] = diff + sums.get(key, slots[key].to(diff.dtype))
                continue
            for key, values in entries(self.diffprune_values, name).items():
                if values.numel():
                    start = sums.get(key, slots[key].to(values.dtype))
                    index = entries(self.diffprune_indices, name)[key].long()
                    sums[key] = start.flatten().index_add(0, index, values).view_as(start)
        return {key: value.to(slots[key].dtype) for key, value in sums.items()}

    def allocate_sparse(self, adapter_name: str, indices: dict[str, Tensor]) -> None:
        """Make the adapter sparse, with zeros at these flat indices of each parameter; other parameters get none."""
        for dense in (self.diffprune_diff, self.diffprune_gate, self.diffprune_group):
            if adapter_name in dense:
                del dense[adapter_name]
        _, device = self.base_dtype_and_device()
        none = torch.zeros(0, dtype=torch.int32)
        places = {key: indices.get(key, none).to(device) for key in self.base_parameters()}
        self.diffprune_values[adapter_name] = nn.ParameterDict(
            {
                key: nn.Parameter(torch.zeros(place.numel(), dtype=torch.float32, device=device))
                for key, place in places.items()
            }
        )
        self.diffprune_indices[adapter_name] = BufferDict(places, persistent=True)

    def project(self, adapter_name: str, keep: dict[str, Tensor]) -> None:
        """Replace the dense difference by its entries for which ``keep`` (flat, boolean, by parameter) is true."""
        dense = {key: diff.detach().flatten() for key, diff in self.dense(adapter_name, sample=False).items()}
        places = {}
        for key, mask in keep.items():
            index = mask.nonzero().squeeze(1)
            places[key] = index.to(torch.int32) if mask.numel() < 2**31 else index
        self.allocate_sparse(adapter_name, places)
        for key, index in places.items():
            entries(self.diffprune_values, adapter_name)[key].data = dense[key][index.long()].to(torch.float32)
