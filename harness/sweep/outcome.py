"""How one plan of a sweep came out, in this process or on a worker."""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from harness.config.messages import explain
from harness.errors import HeldByAnotherProcess, Paused


class Status(Enum):
    """What became of a plan in this command."""

    finished = "finished"
    failed = "failed"
    died = "died"  # the worker process ended without an answer
    paused = "paused"  # at a rung of sweep.prune, with a checkpoint
    pruned = "pruned"  # lost at such a rung
    held = "held"  # another process is running the plan
    not_started = "not started"


@dataclass(frozen=True)
class Outcome:
    """How one plan came out; a failure is an outcome, not an exception.

    Attributes:
        message: why the run failed; for a finished run, a remark, or "".
        seconds: how long it took.
        made_by: "finished by process 4711 on node7", if another process made the result during this command.
        record: the finished record. A worker leaves it out; whoever started the worker reads it from ``runs_dir``.
    """

    fingerprint: str
    status: Status
    message: str = ""
    seconds: float = 0.0
    made_by: str = ""
    record: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        """Whether the plan was attempted and has no result."""
        return self.status in (Status.failed, Status.died)

    def to_plain(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return asdict(self) | {"status": self.status.value}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Outcome":
        """The inverse of ``to_plain``."""
        return cls(**values | {"status": Status(values["status"])})


def outcome_of_error(fingerprint: str, error: Exception, seconds: float) -> Outcome:
    """The outcome of a run that raised ``error``."""
    if isinstance(error, HeldByAnotherProcess):
        return Outcome(fingerprint, Status.held, str(error), seconds)
    if isinstance(error, Paused):
        return Outcome(fingerprint, Status.paused, str(error), seconds)
    message = explain(error).removeprefix("error: ").splitlines()[0]
    return Outcome(fingerprint, Status.failed, message, seconds)
