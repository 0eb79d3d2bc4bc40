"""Methods that insert small networks into the base model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.frozen import text
from harness.methods.context import BuildContext, SheetValues
from harness.methods.fields import Sheet, choice, count, module_names
from harness.methods.knobs import Knob, counts
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import NO_MERGE
from harness.tuners.checks import PLACEMENTS, adapter_faults

if TYPE_CHECKING:
    from peft import PeftConfig


# Activations that transformers knows by these names.
ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu"),
    *("relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu"),
)


@dataclass(kw_only=True)
class Adapter(Sheet):
    """Bottleneck adapters."""

    bottleneck_size: int | None = count()
    reduction_factor: int | None = count()
    placement: str = choice(*PLACEMENTS)
    activation: str = choice(*ACTIVATIONS)
    scaling: float | None
    init_std: float
    adapter_layer_norm: bool
    train_layer_norms: bool
    target_modules: Any = module_names()
    modules_to_save: list[str] | None = text()


def build_adapter(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751): small networks inside each block.

    Pfeiffer et al. 2021 (arXiv:2005.00247), Lin et al. 2020 (arXiv:2004.03829) and the parallel adapter of He et
    al. 2022 (arXiv:2110.04366) are settings of it.
    """
    from harness.tuners.adapter import AdapterConfig

    return AdapterConfig(**settings)


METHODS = {
    "adapter": Method(
        Adapter,
        build_adapter,
        NO_MERGE,
        adapter_faults,
        rate=RateRule(
            0.02, 0.006, "measured on E2E; LoRA (arXiv:2106.09685) tables 9 and 12 and LLM-Adapters use 3e-4 at 7B"
        ),
        knobs=(Knob("bottleneck_size", counts, beside=("reduction_factor",)),),
    )
}
