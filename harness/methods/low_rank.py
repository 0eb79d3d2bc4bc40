"""Methods that add a low-rank or otherwise small update to weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.methods.context import BuildContext, SheetValues, peft_kwargs
from harness.methods.fields import Placed, Targeted, choice, count, layer_numbers, pattern, positive, share
from harness.methods.knobs import Knob, counts, up_to_width
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import DROPS, LYCORIS, PLAIN, Traits

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(kw_only=True)
class LoHa(Placed):
    """LoHa: ``LoHaConfig``."""

    r: int = count()
    alpha: int = positive()
    rank_dropout: float = share()
    module_dropout: float = share()


def build_loha(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """LoHa (FedPara, Hyeon-Woo et al. 2022, arXiv:2108.06098): Hadamard product of two low-rank updates."""
    from peft import LoHaConfig

    return LoHaConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class LoKr(Placed):
    """LoKr: ``LoKrConfig``."""

    r: int = count()
    alpha: int = positive()
    rank_dropout: float = share()
    module_dropout: float = share()
    decompose_both: bool
    decompose_factor: int


def check_lokr(sheet: LoKr) -> Iterator[str]:
    if sheet.decompose_factor != -1 and sheet.decompose_factor < 1:
        yield (
            f"lokr.decompose_factor={sheet.decompose_factor} must be at least 1, or -1 for the factor nearest to the "
            "square root"
        )


def build_lokr(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """LoKr (LyCORIS, Yeh et al. 2024, arXiv:2309.14859): Kronecker product of two small updates."""
    from peft import LoKrConfig

    return LoKrConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class Vera(Targeted):
    """VeRA: ``VeraConfig``."""

    r: int = count()
    projection_prng_key: int | None
    save_projection: bool
    vera_dropout: float = share()
    d_initial: float
    bias: str = choice("none", "all", "vera_only")
    layers_to_transform: list[int] | None = layer_numbers()


def build_vera(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """VeRA (Kopiczko et al. 2024, arXiv:2310.11454): two vectors per layer scale random matrices that all share."""
    from peft import VeraConfig

    return VeraConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class RandLora(Targeted):
    """RandLoRA: ``RandLoraConfig``."""

    r: int = count()
    randlora_alpha: int = count()
    projection_prng_key: int | None
    save_projection: bool
    sparse: bool
    very_sparse: bool
    randlora_dropout: float = share()
    bias: str = choice("none", "all", "randlora_only")
    layers_to_transform: list[int] | None = layer_numbers()


def build_randlora(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """RandLoRA (Albert et al. 2025, arXiv:2502.00987): full rank, as scaled sums of random low-rank bases."""
    from peft import RandLoraConfig

    return RandLoraConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class VbLora(Placed):
    """VB-LoRA: ``VBLoRAConfig``."""

    r: int = count()
    num_vectors: int = count()
    vector_length: int | None = count()
    topk: int = count()
    save_only_topk_weights: bool
    vblora_dropout: float = share()
    bias: str = choice("none", "all", "vblora_only")
    init_vector_bank_bound: float
    init_logits_std: float


def check_vblora(sheet: VbLora) -> Iterator[str]:
    if sheet.topk > sheet.num_vectors:
        yield f"vblora.topk={sheet.topk} exceeds vblora.num_vectors={sheet.num_vectors}; lower it"


def build_vblora(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """VB-LoRA (Li et al. 2024, arXiv:2405.15179): low-rank factors mixed from one bank of vectors."""
    from peft import VBLoRAConfig

    return VBLoRAConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class Miss(Placed):
    """MiSS: ``MissConfig``."""

    r: int = count()
    mini_r: int = count()
    miss_dropout: float = share()
    init_weights: Any = choice(True, False, "bat", "mini")
    bias: str = choice("none", "all", "MiSS_only")


def build_miss(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """MiSS (Kang and Yin 2024, arXiv:2409.15371), once called Bone: one shared matrix, repeated over the input."""
    from peft import MissConfig

    return MissConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class FourierFt(Placed):
    """FourierFT: ``FourierFTConfig``."""

    n_frequency: int = count()
    scaling: float
    random_loc_seed: int | None
    init_weights: bool
    bias: str = choice("none", "all", "fourier_only")
    n_frequency_pattern: dict[str, int] = pattern()


def build_fourierft(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """FourierFT (Gao et al. 2024, arXiv:2405.03003): an update with a few coefficients in the frequency domain."""
    from peft import FourierFTConfig

    return FourierFTConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class C3a(Targeted):
    """C3A: ``C3AConfig``."""

    block_size: int | None = count()
    block_size_pattern: dict[str, int] = pattern()
    init_weights: Any = choice(True, False, "gaussian", "kaiming_uniform", "xavier_uniform")
    bias: str = choice("none", "all", "c3a_only")
    layers_to_transform: list[int] | None = layer_numbers()


def build_c3a(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """C3A (Chen et al. 2024, arXiv:2407.19342): an update of circulant blocks, applied by convolution."""
    from peft import C3AConfig

    return C3AConfig(**peft_kwargs(settings, context))


def falling_ranks(settings: SheetValues, context: BuildContext) -> range:
    """RandLoRA's ranks: a smaller one takes more bases to full rank, and so trains more."""
    return range(context.hidden_size, 0, -1)


def twenty_times(settings: SheetValues, rank: int) -> dict[str, int]:
    """RandLoRA's alpha, 20 times the rank as in PEFT."""
    return {"randlora_alpha": 20 * rank}


def more_than_mixed(settings: SheetValues, context: BuildContext) -> range:
    """VB-LoRA's vectors, of which each piece mixes ``topk``."""
    return range(settings["topk"], 1 << 20)


@dataclass(frozen=True)
class FirstFactor:
    """LoKr's first factor at this size, whatever the rank of the second is."""

    size: int

    def __call__(self, settings: SheetValues, rank: int) -> dict[str, int]:
        return {"decompose_factor": self.size}


# LoKr's second factor is no larger than the layer's size over that of its first. Smaller first factors make room.
LOKR_KNOBS = (
    Knob("r", up_to_width),
    *(Knob("r", up_to_width, along=FirstFactor(factor)) for factor in (16, 8, 4, 2)),
)

METHODS = {
    "loha": Method(
        LoHa,
        build_loha,
        LYCORIS,
        rate=RateRule(
            0.02, 0.02, "measured on E2E, GSM8K and SNIPS; LyCORIS (arXiv:2309.14859) uses 1e-3 or less", gemma=0.6
        ),
        knobs=(Knob("r", up_to_width),),
    ),
    "lokr": Method(
        LoKr,
        build_lokr,
        LYCORIS,
        check_lokr,
        rate=RateRule(0.04, 0.03, "measured on E2E and SNIPS; PEFT method_comparison: 3e-3 at 3B", gemma=0.35),
        knobs=LOKR_KNOBS,
    ),
    "vera": Method(
        Vera,
        build_vera,
        DROPS,
        rate=RateRule(0.1, 0.04, "VeRA (arXiv:2310.11454): 2e-2 to 1e-1 on GPT-2"),
        knobs=(Knob("r", counts),),
    ),
    "randlora": Method(
        RandLora,
        build_randlora,
        DROPS,
        rate=RateRule(0.003, 0.0005, "RandLoRA (arXiv:2502.00987) table 9; interpolated"),
        knobs=(Knob("r", falling_ranks, along=twenty_times),),
    ),
    "vblora": Method(
        VbLora,
        build_vblora,
        Traits(
            identity_at_start=False,
            dropout=True,
            why_unsharded="shares one bank of vectors among all layers, each a shard of its own",
        ),
        check_vblora,
        rate=RateRule(0.02, 0.005, "VB-LoRA (arXiv:2405.15179): bank 1e-3, logits 1e-2"),
        knobs=(Knob("num_vectors", more_than_mixed),),
    ),
    "miss": Method(
        Miss,
        build_miss,
        Traits(conv1d=False, dropout=True),
        rate=RateRule(0.005, 0.0005, "interpolated"),
        knobs=(Knob("r", up_to_width),),
    ),
    "fourierft": Method(
        FourierFt,
        build_fourierft,
        PLAIN,
        rate=RateRule(0.1, 0.05, "FourierFT (arXiv:2405.03003): 2e-2 to 9e-2"),
        knobs=(Knob("n_frequency", counts, beside=("n_frequency_pattern",)),),
    ),
    "c3a": Method(
        C3a,
        build_c3a,
        Traits(identity_at_start=False, conv1d=False),
        rate=RateRule(1, 0.4, "C3A (arXiv:2407.19342): 0.3 to 0.6"),
        knobs=(Knob("block_size", None, falls=True, beside=("block_size_pattern",)),),
    ),
}
