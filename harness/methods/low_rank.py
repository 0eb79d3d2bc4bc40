"""Methods that add a low-rank or otherwise small update to weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.methods.context import BuildContext, SheetValues, peft_kwargs
from harness.methods.fields import Placed, Targeted

if TYPE_CHECKING:
    from peft import PeftConfig


def check_vblora(config: Any) -> list[str]:
    sheet = config.vblora
    if sheet.topk > sheet.num_vectors:
        return [f"vblora.topk={sheet.topk} exceeds vblora.num_vectors={sheet.num_vectors}; lower it"]
    return []


def check_lokr(config: Any) -> list[str]:
    factor = config.lokr.decompose_factor
    if factor != -1 and factor < 1:
        return [f"lokr.decompose_factor={factor} is no factor; use -1 (the nearest to the square root) or at least 1"]
    return []


@dataclass
class LoHa(Placed):
    """LoHa: ``LoHaConfig``."""

    r: int
    alpha: int
    rank_dropout: float
    module_dropout: float


@dataclass
class LoKr(Placed):
    """LoKr: ``LoKrConfig``."""

    r: int
    alpha: int
    rank_dropout: float
    module_dropout: float
    decompose_both: bool
    decompose_factor: int


@dataclass
class Vera(Targeted):
    """VeRA: ``VeraConfig``."""

    r: int
    projection_prng_key: int | None
    save_projection: bool
    vera_dropout: float
    d_initial: float
    bias: str
    layers_to_transform: list[int] | None


@dataclass
class RandLora(Targeted):
    """RandLoRA: ``RandLoraConfig``."""

    r: int
    randlora_alpha: int
    projection_prng_key: int | None
    save_projection: bool
    sparse: bool
    very_sparse: bool
    randlora_dropout: float
    bias: str
    layers_to_transform: list[int] | None


@dataclass
class VbLora(Placed):
    """VB-LoRA: ``VBLoRAConfig``."""

    r: int
    num_vectors: int
    vector_length: int | None
    topk: int
    save_only_topk_weights: bool
    vblora_dropout: float
    bias: str
    init_vector_bank_bound: float
    init_logits_std: float


@dataclass
class Miss(Placed):
    """MiSS: ``MissConfig``."""

    r: int
    mini_r: int
    miss_dropout: float
    init_weights: Any
    bias: str


@dataclass
class FourierFt(Placed):
    """FourierFT: ``FourierFTConfig``."""

    n_frequency: int
    scaling: float
    random_loc_seed: int | None
    init_weights: bool
    bias: str
    n_frequency_pattern: dict[str, int]


@dataclass
class C3a(Targeted):
    """C3A: ``C3AConfig``."""

    block_size: int | None
    block_size_pattern: dict[str, int]
    init_weights: Any
    bias: str
    layers_to_transform: list[int] | None


def loha(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """LoHa (FedPara, Hyeon-Woo et al. 2022, arXiv:2108.06098): Hadamard product of two low-rank updates."""
    from peft import LoHaConfig

    return LoHaConfig(**peft_kwargs(settings, situation))


def lokr(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """LoKr (LyCORIS, Yeh et al. 2024, arXiv:2309.14859): Kronecker product of two small updates."""
    from peft import LoKrConfig

    return LoKrConfig(**peft_kwargs(settings, situation))


def vera(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """VeRA (Kopiczko et al. 2024, arXiv:2310.11454): two vectors per layer scale random matrices that all share."""
    from peft import VeraConfig

    return VeraConfig(**peft_kwargs(settings, situation))


def randlora(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """RandLoRA (Albert et al. 2025, arXiv:2502.00987): full rank, as scaled sums of random low-rank bases."""
    from peft import RandLoraConfig

    return RandLoraConfig(**peft_kwargs(settings, situation))


def vblora(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """VB-LoRA (Li et al. 2024, arXiv:2405.15179): low-rank factors mixed from one bank of vectors."""
    from peft import VBLoRAConfig

    return VBLoRAConfig(**peft_kwargs(settings, situation))


def miss(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """MiSS (Kang and Yin 2024, arXiv:2409.15371), once called Bone: one shared matrix, repeated over the input."""
    from peft import MissConfig

    return MissConfig(**peft_kwargs(settings, situation))


def fourierft(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """FourierFT (Gao et al. 2024, arXiv:2405.03003): an update with a few coefficients in the frequency domain."""
    from peft import FourierFTConfig

    return FourierFTConfig(**peft_kwargs(settings, situation))


def c3a(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """C3A (Chen et al. 2024, arXiv:2407.19342): an update of circulant blocks, applied by convolution."""
    from peft import C3AConfig

    return C3AConfig(**peft_kwargs(settings, situation))
