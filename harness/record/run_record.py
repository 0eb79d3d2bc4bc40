"""The record of one run while it is filled in; ``as_dict`` gives the JSON that ``record.schema.json`` describes."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal

from harness.errors import Paused, hint_for
from harness.record import provenance
from harness.record.upgrade import SCHEMA_VERSION
from harness.shipped import VERSION

TRACEBACK_CHARACTERS = 20_000


class Unset(Enum):
    """A value that the run has not come to yet: its key is left out. None says that it could not be measured."""

    unset = "unset"


UNSET = Unset.unset


@dataclass
class Code:
    """Which code runs; the last two are None outside git."""

    version: str
    harness: str
    git_commit: str | None
    git_dirty: bool | None

    @classmethod
    def here(cls) -> "Code":
        """The code of this process."""
        git = provenance.git_state()
        return cls(provenance.code_version(), VERSION, git.commit, git.dirty)


@dataclass
class Parameters:
    """Numbers in the model, counted after the optimizer was made."""

    total: int | Unset = UNSET
    trainable: int | Unset = UNSET
    share: float | Unset = UNSET  # trainable / total
    stored: int | Unset = UNSET  # numbers in the saved adapter
    trainable_final: int | Unset | None = UNSET  # what pruning left; None for methods that do not prune


@dataclass
class Times:
    """Seconds of each step; 0 for what an earlier run of the process did."""

    load: float | Unset = UNSET
    tokenize: float | Unset = UNSET
    score_before: float | Unset = UNSET
    train: float | Unset | None = UNSET  # optimizer steps only; None for an adapter from elsewhere
    score_after: float | Unset = UNSET


@dataclass
class Memory:
    """Bytes; None where a peak cannot be measured."""

    base: int | Unset = UNSET  # storage of the loaded base model
    train_peak: int | Unset | None = UNSET
    kind: str | Unset | None = UNSET
    score_peak: int | Unset | None = UNSET


@dataclass
class Training:
    """What training did; losses in nats per completion token."""

    optimizer_steps: int | Unset = UNSET
    tokens: int | Unset = UNSET
    tokens_per_s: float | Unset | None = UNSET
    best_step: int | Unset | None = UNSET
    curve: list[dict[str, float]] | Unset = UNSET
    validation: list[dict[str, float]] | Unset = UNSET
    stopped_early: dict[str, Any] | Unset = UNSET  # where and why, of a run that did not train to its end
    figures: dict[str, Any] = field(default_factory=dict)  # the method's own, written beside the others


@dataclass
class ScoreTable:
    """Scores by name: the untouched base model's and the tuned model's; ``signatures`` say how each was computed."""

    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, dict[str, Any]] | Unset = UNSET  # of metrics of the user's own: direction, unit, ...
    cut: dict[str, int] = field(default_factory=dict)  # answers cut at max_new_tokens: before, after, of, limit
    details: dict[str, Any] | Unset = UNSET  # before, after: what some scores are made of
    errors: dict[str, dict[str, float]] | Unset = UNSET  # before, after: standard errors by score


@dataclass
class Adapter:
    """The saved adapter: its folder, relative to the run's, and size and checksum of each file."""

    path: str
    bytes: int
    files: dict[str, int]
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass
class Tracked:
    """The run in the experiment tracker."""

    name: str
    id: str | None
    project: str | None = None
    entity: str | None = None  # W&B: None if the login decides
    group: str | None = None
    url: str | None = None  # if it is online


@dataclass
class Failure:
    """What ended a run early, and what the user can do about it."""

    type: str
    message: str
    hint: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """An exception as the record keeps it."""
        name, trace = type(error).__name__, "".join(traceback.format_exception(error))
        if isinstance(error, Paused):
            return cls(name, str(error), "run the same command again", "")
        return cls(name, str(error) or name, hint_for(error), trace[-TRACEBACK_CHARACTERS:])


@dataclass(kw_only=True)
class RunRecord:
    """One attempt at a plan, from ``running`` to its end; ``docs/record.md`` explains every field."""

    fingerprint: str
    status: Literal["running", "finished", "failed", "interrupted", "pruned"] = "running"
    method: str
    attempt: int  # 1 for the first execution of this plan in this folder
    created: str  # ISO 8601, UTC: start of the first attempt
    started: str
    finished: str | None = None
    plan: dict[str, Any]
    code: Code
    versions: dict[str, str]
    device: dict[str, str | int | None]
    owner: dict[str, str | int | float]
    seeds: dict[str, int | None]
    inferred: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    audit: dict[str, int | str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    parameters: Parameters = field(default_factory=Parameters)
    adapter: Adapter | None = None
    kept: str | Unset = UNSET  # of a finished run: adapter; record, whose adapter is deleted; all, with checkpoints
    times_s: Times = field(default_factory=Times)
    memory_bytes: Memory = field(default_factory=Memory)
    training: Training = field(default_factory=Training)
    packed: dict[str, Any] | Unset = UNSET  # of a run that trained in one pass with others
    scores: ScoreTable = field(default_factory=ScoreTable)
    predictions: str | None = None
    external: dict[str, Any] | Unset = UNSET  # of an adapter that was trained elsewhere and scored here
    tracker: Tracked | None = None
    note: str | None = None  # the user's own words
    tags: list[str] = field(default_factory=list)
    sweep: str | None = None  # name of the sweep that made it; None for a single run
    extensions: list[dict[str, Any]] | Unset = UNSET  # code of the user's own: what for, import path, hashes
    pruned: Mapping[str, Any] | Unset = UNSET  # of a pruned run: why it was ended
    error: Failure | None = None

    def mark_finished(self) -> None:
        """The record is the whole result of its plan."""
        self.status, self.finished, self.error = "finished", now(), None

    def mark_failed(self, error: BaseException) -> None:
        """An error ended the run: ``failed``, or ``interrupted`` if it came from outside or the run is paused."""
        failed = isinstance(error, Exception) and not isinstance(error, Paused)
        self.status = "failed" if failed else "interrupted"
        self.finished, self.error = now(), Failure.of(error)

    def as_dict(self) -> dict[str, Any]:
        """The record in the shape of the newest schema."""
        return {"schema_version": SCHEMA_VERSION} | _plain(self)


def now() -> str:
    """The time as records hold it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, without what is unset; a method's own figures stand beside the others."""
    if not is_dataclass(value):
        return value
    plain = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    known = {name: each for name, each in plain.items() if each is not UNSET}
    return known | known.pop("figures") if isinstance(value, Training) else known
