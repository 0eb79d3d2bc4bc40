"""Names of settings and of group options: which exist, and which one a misspelled name may mean."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_origin, get_type_hints

from harness.config import schema
from harness.errors import brief
from harness.extensions.entry_points import conf_folders
from harness.shipped import shipped_folder

SEE_HELP = "python -m harness --help lists the groups, their options and every key"


@cache
def known_settings() -> dict[str, Any]:
    """Type of every setting, and of the nodes that hold them, by dotted name in the schema's order."""
    return dict(_below(schema.Config, ""))


@cache
def config_groups() -> dict[str, tuple[str, ...]]:
    """Options of each configuration group from which a command picks one, those that other packages offer included."""
    found: dict[str, set[str]] = {}
    for conf in (shipped_folder("conf"), *conf_folders()):
        for folder in conf.iterdir():
            if folder.is_dir() and folder.name != "hydra":
                found.setdefault(folder.name, set()).update(file.stem for file in folder.glob("*.yaml"))
    return {group: tuple(sorted(names)) for group, names in sorted(found.items()) if names}


def unknown_key(key: str, override: str = "") -> str:
    """Message for a name that no setting has, with the nearest names or the way to add an entry.

    Args:
        key: dotted name, without its value.
        override: the argument as typed; its value is repeated in the advice.
    """
    parent, _, leaf = key.rpartition(".")
    entries = next((name for name in known_settings() if _holds_entries(name) and key.startswith(f"{name}.")), None)
    if entries is not None and entries != parent:  # the name of the entry contains dots
        return f"a new entry of {entries} needs a plus: +{entries}={{{key.removeprefix(entries + '.')}:...}}"
    if entries is not None:
        value = re.search(rf"{re.escape(leaf)}['\"]?\s*[=:]\s*([^,}}]+)", override)
        return f"a new entry of {parent} needs a plus: +{key}={value[1] if value else '...'}"
    close = nearest_keys(key)
    remedy = f"did you mean {' or '.join(close)}?" if close else SEE_HELP
    return f"there is no setting {key}; {remedy}"


def _holds_entries(name: str) -> bool:
    return get_origin(known_settings()[name]) is dict


def no_option(group: str, option: str, options: Sequence[str] | None = None) -> str:
    """Message for an option that a group lacks; ``options``: those it has, if they are not the shipped ones."""
    options = config_groups().get(group, ()) if options is None else options
    close = closest(option, options, 0.6)
    hint = f"did you mean {group}={close[0]}? " if close else ""
    choices = f"options: {', '.join(options)}" if options else "the group has no options"
    return f"{group}={brief(option)} does not exist; {hint}{choices}"


def nearest_keys(key: str) -> list[str]:
    """Up to three settings or groups that a misspelled name may mean, the likeliest first."""
    parent, _, leaf = key.rpartition(".")
    siblings = {
        name.rpartition(".")[2]: name
        for name in (*known_settings(), *config_groups())
        if name.rpartition(".")[0] == parent
    }
    same = [name for name in known_settings() if name.rpartition(".")[2] == leaf]
    deeper = [name for name in same if leaf not in siblings and parent and name.startswith(f"{parent}.")]
    close = [*closest(leaf, siblings, 0.6), *(name for name in siblings if name.endswith(f"_{leaf}"))]
    if deeper or close:
        return [*dict.fromkeys([*deeper, *(siblings[name] for name in close)])][:3]
    same = same[:3]
    close = closest(key, known_settings(), 0.8) if parent or not same else []
    return close or same


def closest(name: str, candidates: Iterable[str], cutoff: float) -> list[str]:
    """Up to three candidates at least as similar as ``cutoff`` (0 to 1), the most similar first."""
    return difflib.get_close_matches(name, list(candidates), n=3, cutoff=cutoff)


def _below(node: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(node).items():
        yield prefix + name, kind
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _below(kind, f"{prefix}{name}.")
