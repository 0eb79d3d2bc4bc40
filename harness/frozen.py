"""Configuration nodes: settable while they are built, constant afterwards."""

from typing import Any


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
