"""One row of the table of methods."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.methods.context import BuildContext, SheetValues
from harness.methods.fields import Sheet
from harness.methods.hooks import Hooks
from harness.methods.knobs import Knob
from harness.methods.rates import RateRule
from harness.methods.traits import Traits

if TYPE_CHECKING:
    from peft import PeftConfig


def _no_faults(sheet: Any) -> Iterable[str]:
    return ()


def _same_traits(traits: Traits, settings: SheetValues) -> Traits:
    return traits


@dataclass(frozen=True)
class Method:
    """A way of adapting the base model: its settings, how it is built, and what it can do."""

    sheet: type[Sheet]
    build: Callable[[SheetValues, BuildContext], "PeftConfig"]
    traits: Traits  # at the sheet's values
    check: Callable[[Any], Iterable[str]] = _no_faults  # faults of a sheet's settings with each other
    traits_at: Callable[[Traits, SheetValues], Traits] = _same_traits  # the same at other settings
    hooks: Hooks = field(default_factory=Hooks)
    rate: RateRule | None = None  # the learning rate when none is given; without a rule the sheet must give one
    knobs: tuple[Knob, ...] = ()  # what ``budget`` turns; empty: the size cannot be chosen
