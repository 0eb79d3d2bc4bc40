"""Names of the settings: which exist, and which one a misspelt name may mean.

What Hydra and OmegaConf refuse is said here in the harness's own words: the override first, the remedy last.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_type_hints

from harness.config import schema
from harness.shipped import shipped_folder


@cache
def known_settings() -> dict[str, Any]:
    """Type of every setting, and of the nodes that hold them, by dotted name in the schema's order."""
    return dict(_below(schema.Config, ""))


@cache
def config_groups() -> dict[str, tuple[str, ...]]:
    """Options of each configuration group that a command picks one of."""
    conf = shipped_folder("conf")
    folders = [folder for folder in sorted(conf.iterdir()) if folder.is_dir() and folder.name != "hydra"]
    found = {folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml"))) for folder in folders}
    return {group: options for group, options in found.items() if options}


def nearest_keys(key: str) -> list[str]:
    """Up to three settings or groups that a misspelt name may mean, the likeliest first."""
    parent, _, leaf = key.rpartition(".")
    siblings = {
        name.rpartition(".")[2]: name
        for name in (*known_settings(), *config_groups())
        if name.rpartition(".")[0] == parent
    }
    close = [*closest(leaf, siblings, 0.6), *(name for name in siblings if name.endswith(f"_{leaf}"))]
    if close:
        return [siblings[name] for name in dict.fromkeys(close)][:3]
    same = [name for name in known_settings() if name.rpartition(".")[2] == leaf][:3]
    close = closest(key, known_settings(), 0.8) if parent or not same else []
    return close or same


def closest(name: str, among: Iterable[str], cutoff: float) -> list[str]:
    candidates: Sequence[str] = list(among)
    return difflib.get_close_matches(name, candidates, n=3, cutoff=cutoff)


def _below(node: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(node).items():
        yield prefix + name, kind
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _below(kind, f"{prefix}{name}.")
