"""Errors that a user can act on, hints for those of libraries, and checks that any setting can need.

The text of each error is complete: it names the key or file, the value, and the remedy. The command prints it
without a traceback.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from typing import Any


class HarnessError(Exception):
    """Something the user can fix."""


class ConfigFault(HarnessError):
    """A setting, or a combination of settings, that cannot work."""


class DataFault(HarnessError):
    """Rows that cannot be used, or a data set that cannot be read."""


class ModelFault(HarnessError):
    """A base model that cannot be loaded or does not fit the method."""


class RunFault(HarnessError):
    """A run that could not continue: non-finite loss, out of memory, disk full."""


class HeldByAnotherProcess(RunFault):
    """Another process is running the same plan, or has taken it over; its record will be the result."""


class Paused(RunFault):
    """A run stopped with a checkpoint at the evaluation that it was asked to reach, and waits for a verdict."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result  # what training did so far


class RankFailedAlone(BaseException):
    """One of several processes failed alone (see the cause); the command cannot share further runs."""


def raise_together(faults: Sequence[str], kind: type[HarnessError] = ConfigFault) -> None:
    """Raise one error that lists every fault; do nothing if there are none."""
    if faults:
        raise kind("\n".join(faults))


_UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ConnectError", "LocalEntryNotFoundError")


_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"OutOfMemoryError|out of memory|MemoryError|TerminatedWorkerError|CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory: lower trainer.batch_size and raise trainer.gradient_accumulation_steps by the same "
        "factor (trainer.on_oom=halve does), set trainer.gradient_checkpointing=true, or lower data.max_tokens",
    ),
    (
        r"non-?finite|not finite|\bnan\b.*\bloss|loss.*\bnan\b",
        "the loss is not finite: lower trainer.learning_rate, raise trainer.warmup_share, or use "
        "model.dtype=bfloat16 or float32 instead of float16",
    ),
    (
        r"\[Errno (28|122)\]|No space left|Disk quota",
        "the disk is full: free space, or set runs_dir to another disk",
    ),
    (r"\[Errno (13|30)\]", "no permission to write there: check permissions, or set runs_dir to another folder"),
    (
        r"GatedRepo|gated repo|\b40[13] Client Error",
        "the hub denied access: accept the model's terms and log in",
    ),
    (
        "|".join(_UNREACHABLE)
        + r"|OfflineMode|couldn't connect to|Max retries exceeded|Name or service not known|Name resolution",
        "the hub cannot be reached: check the network, or use model.source=folder and a local data.path",
    ),
    (
        r"device-side assert|illegal memory access",
        "a CUDA kernel failed: CUDA_LAUNCH_BLOCKING=1 shows which one",
    ),
)


def hint_for(error: BaseException) -> str:
    """What the user can do about an error, judged by it and its causes; "" if nothing is known."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped from outside; run the same command again to resume"
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full: free space, or set runs_dir to another disk"
        text = f"{type(cause).__name__}: {cause}"
        for pattern, hint in _HINTS:
            if re.search(pattern, text, re.IGNORECASE):
                return hint
        cause = cause.__cause__ or cause.__context__
    return ""


SHOWN_CHARACTERS = 200  # of one value: a pasted file must not fill the screen


def brief(text: str) -> str:
    """The text, without its middle if it is long."""
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def first_line(error: BaseException) -> str:
    """``Type: message`` of an error that was not written for users: one printable line, its message cut at 200."""
    message = (str(error).strip().splitlines() or ["no message"])[0][:SHOWN_CHARACTERS]
    return f"{type(error).__name__}: {message}".encode("utf-8", "backslashreplace").decode()


def at_least(key: str, value: float | None, low: float) -> Iterator[str]:
    """Fault of a number below ``low``; None is not checked."""
    if value is not None and not value >= low:
        yield f"{key}={value} is too small; use at least {low:g}"


def above(key: str, value: float | None, low: float) -> Iterator[str]:
    """Fault of a number that is not finite and greater than ``low``; None is not checked."""
    if value is not None and not (value > low and value < float("inf")):
        yield f"{key}={value} must be a finite number above {low:g}"


def fraction(key: str, value: float, closed: bool = False) -> Iterator[str]:
    """Fault of a number outside 0 to 1; 1 itself is allowed only if ``closed``."""
    if not (0 <= value < 1 or (closed and value == 1)):
        yield f"{key}={value} must be at least 0 and {'at most' if closed else 'below'} 1"


def one_of(key: str, value: Any, known: tuple[Any, ...]) -> Iterator[str]:
    """Fault of a value that is not one of ``known``, type included."""
    # 1 == True in Python, but 1 is not a flag.
    if not any(value == item and type(value) is type(item) for item in known):
        choices = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in known)
        yield f"{key}={value} is unknown; choose one of {choices}"
