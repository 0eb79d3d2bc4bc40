"""Configuration nodes: settable while they are built, constant afterwards."""

import dataclasses
from enum import Enum
from typing import Any

TEXT = "text"  # key in the metadata of a field


class Text(Enum):
    """How the command line takes the value of a setting that is text."""

    plain = "plain"  # as typed; ${...} refers to another setting, and in a sweep a comma separates values
    verbatim = "verbatim"  # as typed, whatever it is


def text(kind: Text = Text.plain) -> Any:
    """A field that takes a path, a name or other free text, or a list of them."""
    return dataclasses.field(metadata={TEXT: kind})


class ConfigNode:
    """Settable while it is built, constant once ``freeze`` was called on it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_frozen"):
            raise AttributeError(f"{type(self).__name__}.{name} is part of a plan and cannot be changed")
        object.__setattr__(self, name, value)


def freeze(settings: Any) -> Any:
    """Make this node and the nodes below it constant; return it."""
    for value in vars(settings).values():
        if isinstance(value, ConfigNode):
            freeze(value)
    object.__setattr__(settings, "_frozen", True)
    return settings
