"""Methods that multiply weights or activations."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.frozen import ConfigNode
from harness.methods.context import BuildContext, SheetValues, peft_kwargs
from harness.methods.fields import Placed, Targeted

if TYPE_CHECKING:
    from peft import PeftConfig


def check_oft(config: Any) -> list[str]:
    return _one_size("oft.r", config.oft.r, "oft.oft_block_size", config.oft.oft_block_size)


def check_boft(config: Any) -> list[str]:
    sheet = config.boft
    return _one_size("boft.boft_block_num", sheet.boft_block_num, "boft.boft_block_size", sheet.boft_block_size)


def _one_size(number_key: str, number: int | None, size_key: str, size: int | None) -> list[str]:
    if number is not None and size is not None:
        return [f"{number_key}={number} and {size_key}={size} say the same in two ways; set one of them to null"]
    return []


def check_ia3(config: Any) -> list[str]:
    inner, outer = config.ia3.feedforward_modules, config.ia3.target_modules
    if (
        isinstance(inner, list)
        and isinstance(outer, list)
        and (strays := [name for name in inner if name not in outer])
    ):
        return [f"ia3.feedforward_modules={inner} goes beyond ia3.target_modules={outer}; add {strays} there"]
    return []


# Methods that multiply weights or activations.


@dataclass
class Ia3(ConfigNode):
    """IA3: ``IA3Config``."""

    learning_rate: float
    target_modules: Any
    feedforward_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


@dataclass
class Oft(Placed):
    """OFT: ``OFTConfig``; ``r`` blocks, or blocks of ``oft_block_size``."""

    r: int | None
    oft_block_size: int | None
    bias: str
    coft: bool
    eps: float
    block_share: bool
    use_cayley_neumann: bool
    num_cayley_neumann_terms: int


@dataclass
class Boft(Placed):
    """BOFT: ``BOFTConfig``."""

    boft_block_size: int | None
    boft_block_num: int | None
    boft_n_butterfly_factor: int
    boft_dropout: float
    bias: str


@dataclass
class Hra(Placed):
    """HRA: ``HRAConfig``."""

    r: int
    apply_GS: bool
    bias: str


@dataclass
class Road(Targeted):
    """RoAd: ``RoadConfig``."""

    variant: str
    group_size: int | None


def ia3(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """IA3 (Liu et al. 2022, arXiv:2205.05638, sec. 3.3): learnt scales of keys, values and MLP activations."""
    from peft import IA3Config

    return IA3Config(**peft_kwargs(settings, situation))


def oft(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """OFT (Qiu et al. 2023, arXiv:2306.07280; OFTv2, arXiv:2506.19847): block-diagonal rotations of the input."""
    from peft import OFTConfig

    blocks = peft_kwargs(settings, situation)
    if blocks.get("r"):
        blocks.setdefault("oft_block_size", 0)
    return OFTConfig(**blocks)


def boft(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """BOFT (Liu et al. 2024, arXiv:2311.06243): rotations as products of butterfly factors."""
    from peft import BOFTConfig

    blocks = peft_kwargs(settings, situation)
    if blocks.get("boft_block_num"):
        blocks.setdefault("boft_block_size", 0)
    return BOFTConfig(**blocks)


def hra(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """HRA (Yuan et al. 2024, arXiv:2405.17484): a chain of Householder reflections of the input."""
    from peft import HRAConfig

    return HRAConfig(**peft_kwargs(settings, situation))


def road(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """RoAd (Liao and Monz 2024, arXiv:2409.00119): rotations and scales of pairs of outputs."""
    from peft import RoadConfig

    return RoadConfig(**peft_kwargs(settings, situation))
