"""Configuration nodes: settable while they are built, constant afterwards."""

import dataclasses
from enum import Enum
from functools import cache
from typing import Any

TEXT = "text"  # key in the metadata of a field


class Text(Enum):
    """How the command line takes the value of a setting that is text."""

    plain = "plain"  # as typed; ${...} refers to another setting, and in a sweep a comma separates values
    verbatim = "verbatim"  # as typed, whatever it is


def text(kind: Text = Text.plain) -> Any:
    """A field that takes a path, a name or other free text, or a list of them."""
    return dataclasses.field(metadata={TEXT: kind})


NAMES = "names"  # likewise


def named(names: type[Enum]) -> Any:
    """A field that takes the name of something built in, as one of these values, or other text: an import path."""
    return dataclasses.field(metadata={TEXT: Text.plain, NAMES: names})


class ConfigNode:
    """Settable while it is built, constant once ``freeze`` was called on it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_frozen"):
            raise AttributeError(f"{type(self).__name__}.{name} is part of a plan and cannot be changed")
        node: Any = type(self)
        names = _names_of(node).get(name)
        if names is not None and type(value) is str and value in {each.value for each in names}:
            value = names(value)
        object.__setattr__(self, name, value)


@cache
def _names_of(node: type) -> dict[str, type[Enum]]:
    """The fields that ``named`` made, with their values."""
    if not dataclasses.is_dataclass(node):
        return {}
    return {each.name: each.metadata[NAMES] for each in dataclasses.fields(node) if NAMES in each.metadata}


def freeze(settings: Any) -> Any:
    """Make this node and the nodes below it constant; return it."""
    for value in vars(settings).values():
        if isinstance(value, ConfigNode):
            freeze(value)
    object.__setattr__(settings, "_frozen", True)
    return settings
