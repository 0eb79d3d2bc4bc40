"""Methods that multiply weights or activations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.frozen import text
from harness.methods.context import BuildContext, SheetValues, peft_kwargs
from harness.methods.fields import Placed, Sheet, Targeted, choice, count, module_names, share
from harness.methods.knobs import Knob
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import LINEAR, PLAIN, Traits

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(kw_only=True)
class Ia3(Sheet):
    """IA3: ``IA3Config``."""

    target_modules: Any = module_names()
    feedforward_modules: Any = module_names()
    exclude_modules: Any = module_names()
    modules_to_save: list[str] | None = text()


def check_ia3(sheet: Ia3) -> Iterator[str]:
    inner, outer = sheet.feedforward_modules, sheet.target_modules
    if isinstance(inner, list) and isinstance(outer, list):
        strays = [name for name in inner if name not in outer]
        if strays:
            yield f"ia3.feedforward_modules={inner} goes beyond ia3.target_modules={outer}; add {strays} there"


def build_ia3(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """IA3 (Liu et al. 2022, arXiv:2205.05638, sec. 3.3): learned scales of keys, values and MLP activations."""
    from peft import IA3Config

    return IA3Config(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class Oft(Placed):
    """OFT: ``OFTConfig``; ``r`` blocks, or blocks of ``oft_block_size``."""

    r: int | None = count()
    oft_block_size: int | None = count()
    bias: str = choice("none", "all", "oft_only")
    coft: bool
    eps: float
    block_share: bool
    use_cayley_neumann: bool
    num_cayley_neumann_terms: int = count()


def check_oft(sheet: Oft) -> Iterator[str]:
    yield from _one_size("oft.r", sheet.r, "oft.oft_block_size", sheet.oft_block_size)


def build_oft(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """OFT (Qiu et al. 2023, arXiv:2306.07280; OFTv2, arXiv:2506.19847): block-diagonal rotations of the input."""
    from peft import OFTConfig

    blocks = peft_kwargs(settings, context)
    if blocks.get("r"):
        blocks.setdefault("oft_block_size", 0)
    return OFTConfig(**blocks)


@dataclass(kw_only=True)
class Boft(Placed):
    """BOFT: ``BOFTConfig``."""

    boft_block_size: int | None = count()
    boft_block_num: int | None = count()
    boft_n_butterfly_factor: int = count()
    boft_dropout: float = share()
    bias: str = choice("none", "all", "boft_only")


def check_boft(sheet: Boft) -> Iterator[str]:
    yield from _one_size("boft.boft_block_num", sheet.boft_block_num, "boft.boft_block_size", sheet.boft_block_size)


def build_boft(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """BOFT (Liu et al. 2024, arXiv:2311.06243): rotations as products of butterfly factors."""
    from peft import BOFTConfig

    blocks = peft_kwargs(settings, context)
    if blocks.get("boft_block_num"):
        blocks.setdefault("boft_block_size", 0)
    return BOFTConfig(**blocks)


@dataclass(kw_only=True)
class Hra(Placed):
    """HRA: ``HRAConfig``."""

    r: int = count()
    apply_GS: bool
    bias: str = choice("none", "all", "hra_only")


def check_hra(sheet: Hra) -> Iterator[str]:
    if sheet.apply_GS and sheet.r % 2 == 0:
        # PEFT starts such a chain as pairs of equal vectors; what Gram-Schmidt leaves of the second is rounding error.
        yield (
            f"hra.apply_GS=true needs an odd hra.r, not {sheet.r}, at which PEFT starts from pairs of equal vectors "
            f"that cannot be made orthogonal; set hra.r={max(sheet.r - 1, 1)}"
        )


def hra_traits(traits: Traits, settings: SheetValues) -> Traits:
    """HRA starts as the base only from pairs of reflections."""
    return traits if settings.get("r", 8) % 2 == 0 else replace(traits, identity_at_start=False)


def build_hra(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """HRA (Yuan et al. 2024, arXiv:2405.17484): a chain of Householder reflections of the input."""
    from peft import HRAConfig

    return HRAConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class Road(Targeted):
    """RoAd: ``RoadConfig``."""

    variant: str = choice("road_1", "road_2", "road_4")
    group_size: int | None = count()


def build_road(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """RoAd (Liao and Monz 2024, arXiv:2409.00119): rotations and scales of pairs of outputs."""
    from peft import RoadConfig

    return RoadConfig(**peft_kwargs(settings, context))


def _one_size(number_key: str, number: int | None, size_key: str, size: int | None) -> Iterator[str]:
    if number is not None and size is not None:
        yield f"{number_key}={number} and {size_key}={size} set the same thing; set one of them to null"


def reflections(settings: SheetValues, context: BuildContext) -> range:
    """HRA's numbers of reflections: odd ones with ``apply_GS``, else even ones, which start as the base."""
    return range(1 if settings["apply_GS"] else 2, context.hidden_size + 1, 2)


METHODS = {
    "ia3": Method(
        Ia3,
        build_ia3,
        PLAIN,
        check_ia3,
        rate=RateRule(0.2, 0.04, "measured on E2E and SNIPS; PEFT method_comparison uses 5e-3 at 3B"),
    ),
    "oft": Method(
        Oft,
        build_oft,
        Traits(conv1d=False),
        check_oft,
        rate=RateRule(0.02, 0.001, "OFTv2 (arXiv:2506.19847) 4e-4"),
        knobs=(Knob("oft_block_size", None, beside=("r",)),),
    ),  # PEFT 0.21 has a dropout here that nothing calls
    "boft": Method(
        Boft,
        build_boft,
        Traits(conv1d=False, dropout=True),
        check_boft,
        rate=RateRule(0.02, 0.001, "BOFT (arXiv:2311.06243) appendix A"),
        knobs=(Knob("boft_block_size", None, beside=("boft_block_num",)),),
    ),
    "hra": Method(
        Hra,
        build_hra,
        LINEAR,
        check_hra,
        hra_traits,
        rate=RateRule(0.02, 0.003, "HRA (arXiv:2405.17484)"),
        knobs=(Knob("r", reflections),),
    ),
    "road": Method(
        Road,
        build_road,
        Traits(conv1d=False),
        rate=RateRule(0.1, 0.003, "PEFT's documentation; interpolated"),
        knobs=(Knob("variant", lambda settings, context: ("road_1", "road_2", "road_4")),),
    ),
}
