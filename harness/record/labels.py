"""Labels of runs: the user's note and tags. They change no result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Labels:
    """What one command says about its runs."""

    note: str | None = None
    tags: tuple[str, ...] = ()

    def added_to(self, former: Mapping[str, Any] | None) -> dict[str, Any]:
        """The labels of a record that had those of ``former``: a new note replaces its note, tags are added."""
        former = former or {}
        return {
            "note": former.get("note") if self.note is None else self.note,
            "tags": list(dict.fromkeys((*(former.get("tags") or ()), *self.tags))),
        }
