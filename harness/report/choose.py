"""Which records a report shows: folders, fingerprints and a condition on the fields of each record."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, HarnessError, raise_together
from harness.record import store
from harness.report.expression import Condition
from harness.report.fields import record_fields
from harness.trackers.wandb import RECORD

log = logging.getLogger(__name__)

SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class FoundRun:
    """A record and where it lies."""

    record: Mapping[str, Any]
    folder: Path

    @property
    def fingerprint(self) -> str:
        """Of the run's plan."""
        return str(self.record["fingerprint"])


def read_runs(folders: Sequence[Path], key: str = "runs_dir") -> list[FoundRun]:
    """Every record in these folders, by start; those that W&B's files carry are records, too.

    A plan that several folders hold counts once: its newest finished run.

    Raises:
        ConfigFault: a folder does not exist, or none of them holds a record.
    """
    # The folder of runs comes into being with the first one.
    missing = [folder for folder in folders if not folder.is_dir() and key != "runs_dir"]
    raise_together([f"{key}={folder} is not a folder; name one that holds runs" for folder in missing])
    found: dict[str, FoundRun] = {}
    doubled: dict[str, list[str]] = defaultdict(list)
    for folder in dict.fromkeys(folders):
        for run in (*_runs_in(folder), *_copies_in(folder)):
            other = found.get(run.fingerprint)
            if other is not None:
                doubled[str(folder)].append(run.fingerprint)
            if other is None or _rank(run) > _rank(other):
                found[run.fingerprint] = run
    if not found:
        raise ConfigFault(
            f"{key}={','.join(map(str, folders))} holds no record; run something first, or name a folder with runs"
        )
    for name, fingerprints in doubled.items():
        log.warning(
            "%d runs of %s are also in an earlier folder and count once: %s",
            len(fingerprints),
            name,
            _some(fingerprints),
        )
    return sorted(found.values(), key=lambda run: (run.record["started"], run.fingerprint))


def _runs_in(folder: Path) -> Iterator[FoundRun]:
    for record in store.all_records(folder, foreign=True):
        yield FoundRun(record, folder / record["fingerprint"])


def _copies_in(folder: Path) -> Iterator[FoundRun]:
    """Records that W&B's files carry, in the folder that ``tracker.dir`` names or in its ``wandb``."""
    for pattern in ("{}run-*/files/{}", "wandb/{}run-*/files/{}"):
        for prefix in ("", "offline-"):
            for file in sorted(folder.glob(pattern.format(prefix, RECORD))):
                try:
                    yield FoundRun(store.read_copy(file), file.parent)
                except HarnessError as error:
                    log.warning("left out: %s", error)


def runs_of(runs_dir: Path, fingerprints: Iterable[str]) -> list[FoundRun]:
    """The records of these plans that are in the folder."""
    records = ((name, store.read_record(runs_dir, name)) for name in fingerprints)
    return [FoundRun(record, runs_dir / name) for name, record in records if record is not None]


def _rank(run: FoundRun) -> tuple[bool, str]:
    return run.record["status"] == "finished", str(run.record["started"])


def choose_runs(
    runs: Sequence[FoundRun],
    fingerprints: Sequence[str] | None = None,
    where: str | None = None,
    key: str = "report.runs",
) -> list[FoundRun]:
    """Those with these fingerprints (or whose fingerprint begins so) that satisfy the condition.

    Raises:
        ConfigFault: a fingerprint matches no run or several, the condition cannot be read, or no run satisfies it.
    """
    condition = None if where is None else Condition(where)
    if fingerprints is not None:
        runs = _named(runs, fingerprints, key)
    if condition is None:
        return list(runs)
    fields = {run.fingerprint: record_fields(run.record) for run in runs}
    known = frozenset(name for each in fields.values() for name in each)
    condition.check_fields(known)
    chosen = [run for run in runs if condition.holds(fields[run.fingerprint], known)]
    if not chosen:
        raise ConfigFault(f"report.where={where} matches none of {len(runs)} runs{_values(condition, fields.values())}")
    return chosen


def _named(runs: Sequence[FoundRun], names: Sequence[str], key: str) -> list[FoundRun]:
    faults, chosen = [], {}
    for name in names:
        matching = [run for run in runs if run.fingerprint.startswith(name)] if name else []
        exact = [run for run in matching if run.fingerprint == name]
        matching = exact or matching
        if len(matching) == 1:
            chosen[matching[0].fingerprint] = matching[0]
        elif matching:
            several = _some([run.fingerprint for run in matching])
            faults.append(f"{key}={name} matches {len(matching)} runs; give more of: {several}")
        else:
            known = _some([run.fingerprint for run in runs])
            faults.append(f"{key}={name} matches no run; copy a fingerprint from the column `run`: {known}")
    raise_together(faults)
    return list(chosen.values())


def _values(condition: Condition, fields: Any) -> str:
    """Which values the fields of the condition do have."""
    parts = []
    records = list(fields)
    for name in condition.fields(frozenset(name for each in records for name in each)):
        values = dict.fromkeys(str(each.get(name)) for each in records)
        parts.append(f"{name} is {_some(list(values))}")
    return f"; {'; '.join(parts)}" if parts else ""


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
