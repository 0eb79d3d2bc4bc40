"""What decides a method's size: the setting that ``budget`` turns, declared beside the method.

    "lora": Method(Lora, build_lora, ..., knobs=(Knob("r", up_to_width, beside=("rank_pattern",)),))

Of several knobs the first that can meet a budget is turned. A method without one cannot be held to a budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.methods.context import BuildContext, SheetValues

ANY = 1 << 24  # a count without a natural limit

TRAINABLE, STORED, FLOPS = "trainable_params", "adapter_bytes", "train_flops"  # what a budget can be given in


def no_more(settings: SheetValues, value: Any) -> Mapping[str, Any]:
    """The knob alone."""
    return {}


def always(settings: SheetValues, quantity: str) -> bool:
    """The knob decides every quantity, whatever the other settings are."""
    return True


@dataclass(frozen=True)
class Knob:
    """One setting of a sheet, with its values from the smallest adapter to the largest."""

    key: str
    values: Callable[[SheetValues, BuildContext], Sequence[Any]] | None  # None: the block sizes that fit every layer
    falls: bool = False  # of block sizes: the larger, the fewer parameters
    beside: tuple[str, ...] = ()  # settings that decide the size instead, and so must be unset
    along: Callable[[SheetValues, Any], Mapping[str, Any]] = no_more  # settings that follow this one
    serves: Callable[[SheetValues, str], bool] = always  # whether it decides this quantity at these settings

    def setting(self, settings: SheetValues, value: Any) -> dict[str, Any]:
        """The fields of the sheet with the knob at ``value``."""
        outer, _, inner = self.key.partition(".")
        own = {outer: {**settings[outer], inner: value}} if inner else {outer: value}
        return own | dict(self.along(settings, value))

    def given(self, settings: SheetValues, usual: SheetValues) -> list[str]:
        """The settings that say the size already: the knob, what follows it, and what would decide it instead."""
        return [key for key in self.keys(settings) if _read(settings, key) != _read(usual, key)]

    def keys(self, settings: SheetValues) -> list[str]:
        """Names of the settings that a budget decides."""
        return [self.key, *self.along(settings, 1), *self.beside]


def _read(settings: SheetValues, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def up_to_width(settings: SheetValues, context: BuildContext) -> Sequence[int]:
    """Ranks: up to the model's width."""
    return range(1, context.hidden_size + 1)


def counts(settings: SheetValues, context: BuildContext) -> Sequence[int]:
    """Numbers of things; the model says itself if they are too many."""
    return range(1, ANY)


def layers(settings: SheetValues, context: BuildContext) -> Sequence[int]:
    """Numbers of layers of the model."""
    return range(1, context.num_layers + 1)


def tokens(settings: SheetValues, context: BuildContext) -> Sequence[int]:
    """Numbers of different tokens."""
    return range(1, (context.vocabulary or ANY) + 1)
