"""Fields of the sheets, with what their values must satisfy declared beside the type.

    @dataclass(kw_only=True)
    class Ia3(Sheet):
        target_modules: Any = module_names()
        r: int = count()

Values are not given here: they are in ``conf/peft/<method>.yaml``. ``null`` in a sheet leaves the choice to PEFT, to
the model's dimensions, or, for a seed, to the run.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import above, at_least, brief, fraction, one_of
from harness.frozen import TEXT, ConfigNode, Text, text

Check = Callable[[str, Any, Any], Iterator[str]]  # key, value, sheet -> faults


def _module_names(key: str, value: Any, sheet: Any) -> Iterator[str]:
    listed = isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
    if not (value is None or listed or (isinstance(value, str) and value)):
        yield f"{key}={brief(str(value))} must be a name, a list of names, or null; e.g. {key}=[q_proj,v_proj]"
    elif isinstance(value, str):
        yield from _expression(key, value)


def _expression(key: str, value: str) -> Iterator[str]:
    """PEFT reads a single text as a regular expression over whole names."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        yield (
            f"{key}={brief(value)} is not a valid regular expression ({error}); give a list of names, "
            "e.g. [q_proj,v_proj]"
        )


def _layer_numbers(key: str, value: list[int] | None, sheet: Any) -> Iterator[str]:
    if value is None:
        return
    if not value or any(layer < 0 for layer in value):
        yield f"{key}={value} must list layers, counted from 0; use null for all layers"
    targets, method = sheet.target_modules, key.partition(".")[0]
    # PEFT turns all-linear into a list first, except for LoRA; a regular expression would silently win.
    if isinstance(targets, str) and (targets != "all-linear" or method == "lora"):
        yield f"{key}={value} needs a list in {method}.target_modules, not {targets}; e.g. [q_proj,v_proj]"


def _pattern(key: str, value: dict[str, float], sheet: Any) -> Iterator[str]:
    for name, item in value.items():
        yield from _expression(key, name)
        yield from above(f"{key}.{name}", item, 0)


def checked(check: Check, **more: Any) -> Any:
    """A field whose value must pass ``check``."""
    return dataclasses.field(metadata={"check": check, **more})


def count() -> Any:
    """A number of things (ranks, tokens, layers, blocks, steps): at least 1, or null if the type allows it."""
    return checked(lambda key, value, sheet: at_least(key, value, 1))


def minimum(low: float) -> Any:
    """At least ``low``, or null."""
    return checked(lambda key, value, sheet: at_least(key, value, low))


def positive(low: float = 0) -> Any:
    """A finite number above ``low``, or null."""
    return checked(lambda key, value, sheet: above(key, value, low))


def share(closed: bool = False) -> Any:
    """At least 0 and below 1, or up to 1 if ``closed``."""
    return checked(lambda key, value, sheet: fraction(key, value, closed))


def choice(*values: Any) -> Any:
    """One of ``values``."""
    return checked(lambda key, value, sheet: one_of(key, value, values), choices=values)


def between(low: float, high: float) -> Any:
    """Above ``low`` and below ``high``."""

    def check(key: str, value: float, sheet: Any) -> Iterator[str]:
        if not low < value < high:
            yield f"{key}={value} must be above {low:g} and below {high:g}"

    return checked(check)


def module_names() -> Any:
    """Names of modules: a list of endings, a regular expression, a keyword such as all-linear, or null."""
    return checked(_module_names, **{TEXT: Text.plain})


def layer_numbers() -> Any:
    """Numbers of the layers to adapt, counted from 0; null means all."""
    return checked(_layer_numbers)


def pattern() -> Any:
    """Values by regular expressions over module names."""
    return checked(_pattern)


@dataclass(kw_only=True)
class Sheet(ConfigNode):
    """The settings of one method, under PEFT's own field names."""

    learning_rate: float | None = positive()  # null: the method's rule


@dataclass(kw_only=True)
class Placed(Sheet):
    """What most methods of PEFT share: which layers they adapt."""

    target_modules: Any = module_names()
    exclude_modules: Any = module_names()
    modules_to_save: list[str] | None = text()
    layers_to_transform: list[int] | None = layer_numbers()


@dataclass(kw_only=True)
class Targeted(Sheet):
    """The same for methods that exclude nothing and have no layer numbers."""

    target_modules: Any = module_names()
    modules_to_save: list[str] | None = text()


def field_faults(method: str, sheet: Any) -> Iterator[str]:
    """Faults of the sheet's fields, each taken alone."""
    for each in dataclasses.fields(sheet):
        if check := each.metadata.get("check"):
            yield from check(f"{method}.{each.name}", getattr(sheet, each.name), sheet)
