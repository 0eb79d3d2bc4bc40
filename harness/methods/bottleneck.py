"""Methods that insert small networks into the base model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.frozen import ConfigNode
from harness.methods.context import BuildContext, SheetValues

if TYPE_CHECKING:
    from peft import PeftConfig


def check_adapter(config: Any) -> list[str]:
    sheet = config.adapter
    if (sheet.bottleneck_size is None) == (sheet.reduction_factor is None):
        return [
            f"adapter.bottleneck_size={sheet.bottleneck_size} and adapter.reduction_factor={sheet.reduction_factor}: "
            "set exactly one of the two, and the other to null"
        ]
    return []


# Methods that add a small network.


@dataclass
class Adapter(ConfigNode):
    """Bottleneck adapters."""

    learning_rate: float
    bottleneck_size: int | None
    reduction_factor: int | None
    placement: str
    activation: str
    scaling: float | None
    init_std: float
    adapter_layer_norm: bool
    train_layer_norms: bool
    target_modules: Any
    modules_to_save: list[str] | None


def adapter(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751): small networks inside each block.

    Pfeiffer et al. 2021 (arXiv:2005.00247), Lin et al. 2020 (arXiv:2004.03829) and the parallel adapter of He et
    al. 2022 (arXiv:2110.04366) are settings of it.
    """
    from harness.tuners.adapter import AdapterConfig

    return AdapterConfig(**settings)
