"""What the settings of the tuners must satisfy by themselves, without a model, torch or PEFT.

Each function takes any object with the fields of the configuration, and yields one message for each fault. The
configurations raise them together; the plan asks the same functions before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from harness.errors import above, at_least, fraction, one_of

PLACEMENTS = ("houlsby", "pfeiffer", "parallel")


def adapter_faults(settings: Any) -> Iterator[str]:
    """Faults of ``AdapterConfig``, except of its activation, whose names transformers knows."""
    if (settings.bottleneck_size is None) == (settings.reduction_factor is None):
        yield (
            f"adapter.bottleneck_size={settings.bottleneck_size} and adapter.reduction_factor="
            f"{settings.reduction_factor}: set exactly one of the two, and the other to null"
        )
    yield from at_least("adapter.bottleneck_size", settings.bottleneck_size, 1)
    yield from at_least("adapter.reduction_factor", settings.reduction_factor, 1)
    yield from one_of("adapter.placement", settings.placement, PLACEMENTS)
    yield from at_least("adapter.init_std", settings.init_std, 0)


def partial_faults(settings: Any) -> Iterator[str]:
    """Faults of ``PartialConfig``."""
    yield from at_least("partial.last_layers", settings.last_layers, 1)
    if settings.last_layers is None and not settings.modules and not settings.norms:
        yield "partial selects nothing to train; set partial.last_layers, partial.modules or partial.norms=true"


def diff_pruning_faults(settings: Any) -> Iterator[str]:
    """Faults of ``DiffPruningConfig``."""
    sparsity = settings.target_sparsity
    yield from list(above("diff_pruning.target_sparsity", sparsity, 0)) or fraction(
        "diff_pruning.target_sparsity", sparsity, closed=True
    )
    yield from at_least("diff_pruning.l0_weight", settings.l0_weight, 0)
    if not float("-inf") < settings.stretch_lower < 0:
        yield f"diff_pruning.stretch_lower={settings.stretch_lower} must be a finite number below 0"
    yield from above("diff_pruning.stretch_upper", settings.stretch_upper, 1)


def raise_faults(faults: Iterable[str]) -> None:
    """Raise one ``ValueError``, PEFT's kind of error, that lists every fault; return if there is none."""
    found = list(faults)
    if found:
        raise ValueError("; ".join(found))
