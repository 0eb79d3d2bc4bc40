"""What the steps of a run make: each value is one step's result, with its cost."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the process's cache imports this module before torch is needed
    from peft import PeftModel

    from harness.data.tokenize import TokenizedRow
    from harness.models.base import Base
    from harness.plan.spec import Plan
    from harness.scoring.score import Scores
    from harness.training.train import TrainingResult


@dataclass(frozen=True)
class SharedBase:
    """A base model, the checksum of its weights as loaded, and the seconds that loading took for this run."""

    base: "Base"
    checksum: str
    seconds: float  # 0 if an earlier run of the process loaded it


@dataclass(frozen=True)
class PreparedRows:
    """Tokenized rows of all splits and of the held-out text."""

    splits: "dict[str, list[TokenizedRow]]"
    scored: "dict[str, list[TokenizedRow]]"  # the same rows with the prompts of scoring.template
    held_out: "list[TokenizedRow]"
    rows: dict[str, int]  # of each split, and ``bad`` ones
    refused: int
    stops: tuple[int, ...]  # ids at which generation stops
    end_id: int  # the one of them that is trained
    notes: tuple[str, ...]
    seconds: float  # spent on this plan; 0 if another of the process had the same rows


@dataclass(frozen=True)
class AuditedRows:
    """Rows as tokens, the label audit of the training split, and what to know before training."""

    prepared: PreparedRows
    audit: dict[str, int | str]
    notes: tuple[str, ...] = ()

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids at which generation stops."""
        return self.prepared.stops

    @property
    def splits(self) -> "dict[str, list[TokenizedRow]]":
        """Rows by split."""
        return self.prepared.splits

    @property
    def scored(self) -> "dict[str, list[TokenizedRow]]":
        """Rows by split, as they are scored."""
        return self.prepared.scored


@dataclass(frozen=True)
class Baseline:
    """Scores of the untouched base model; 0 seconds if an earlier run measured them."""

    scores: "Scores"
    seconds: float


@dataclass(frozen=True)
class Scored:
    """Scores of the tuned model, by the protocol of the baseline."""

    scores: "Scores"
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Predictions:
    """The file with prompt, reference and both answers of every scored row; None if nothing was generated."""

    name: str | None


@dataclass(frozen=True)
class Attached:
    """The method on a fork of the base model, ready to train."""

    model: "PeftModel"
    inferred: dict[str, Any]  # defaults that were resolved
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SmallerBatch:
    """Memory ran out: the plan with fewer rows per pass and more passes per optimizer step."""

    plan: "Plan"
    reason: str


@dataclass(frozen=True)
class Trained:
    """What training did, its peak memory, and the method's own figures."""

    result: "TrainingResult"
    peak_bytes: int | None
    peak_kind: str | None
    figures: dict[str, Any]


@dataclass(frozen=True)
class Tuned:
    """The trained model, and how its adapter is written into a folder."""

    model: "PeftModel"
    write: Callable[[Path], None]
