"""Labels of runs: the user's note and tags, and the sweeps that a run is part of. They change no result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.record.run_record import RunRecord


@dataclass(frozen=True)
class Labels:
    """What one command says about its runs."""

    note: str | None = None
    tags: tuple[str, ...] = ()
    sweep: str | None = None

    def added_to(self, former: Mapping[str, Any] | None) -> dict[str, Any]:
        """The labels of a record that had those of ``former``: a new note replaces its note, all else is added."""
        former = former or {}
        return {
            "note": former.get("note") if self.note is None else self.note,
            "tags": _united(former.get("tags"), self.tags),
            "sweeps": _united(former.get("sweeps"), (self.sweep,) if self.sweep else ()),
        }

    def put_on(self, record: RunRecord, former: Mapping[str, Any] | None) -> None:
        """Label a record that replaces ``former``, whose labels it keeps."""
        for name, value in self.added_to(former).items():
            setattr(record, name, value)


def _united(former: Iterable[str] | None, new: Iterable[str]) -> list[str]:
    return list(dict.fromkeys((*(former or ()), *new)))
