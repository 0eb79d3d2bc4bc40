"""Several processes for one run, one a device, started by ``torchrun`` or ``accelerate launch``.

The first process is the command: it alone reads the configuration, decides what runs, and writes. It announces
each run to the others, which ``follow``. Within a run all walk the same stages; what only one may do (records,
scores, files) the first does and the others wait for, by ``agreed``; how they share training is ``sharding``'s.
A process that fails alone ends the command, and the record says why. With one process all is a plain call.

Imports no torch before a second process is there.
"""

import logging
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from harness.errors import RankFailedAlone, RunFault
from harness.runtime import signals

LONGEST_WAIT = timedelta(hours=12)  # the others wait while the first scores


SAME_FAULT_S = 5.0  # within which a fault that all processes have shows in all of them


T = TypeVar("T")


def processes() -> int:
    """How many processes work on this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if processes() > 1 else 0


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


# --- one walk -------------------------------------------------------------------------------------------

_store: Any = None  # what the processes tell each other beside the collectives; None: not joined yet


_walk: Any = None  # the group in which they wait for each other, on the CPU whatever they train on


_failures = 0  # of runs so far, the same number in all processes


_over = False  # whether nothing more can be shared


def _join() -> Any:
    """``torch.distributed`` with all processes in it, joined on the first call."""
    global _store, _walk
    import torch
    from torch import distributed

    if _store is None:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(local_rank())
        _store, _, _ = next(iter(distributed.rendezvous("env://", rank(), processes(), timeout=LONGEST_WAIT)))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=distributed.PrefixStore("harness", _store),
            rank=rank(),
            world_size=processes(),
        )
        _walk = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    return distributed


def broadcast_from_main(decide: Callable[[], T]) -> T:
    """What the first process finds, in all of them; an error there is everyone's error."""
    if processes() == 1:
        return decide()
    _join()
    value, error = _broadcast(_outcome(decide) if is_main_process() else None)
    if error is not None:
        raise error
    return value


def _outcome(decide: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return decide(), None
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # classes of libraries may need more than their text
            return None, RunFault(f"{type(error).__name__}: {error}")
        return None, error


def gather(value: T) -> list[T]:
    """This value of every process, by rank."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    _join().all_gather_object(found, value, group=_walk)
    return found


def all_true(flag: bool) -> bool:
    """Whether it holds in all processes; cheap enough for each batch."""
    if processes() == 1:
        return flag
    import torch

    distributed = _join()
    shared = torch.tensor(int(flag))
    distributed.all_reduce(shared, op=distributed.ReduceOp.MIN, group=_walk)
    return bool(shared)


def announce_failure(error: BaseException) -> tuple[BaseException, bool]:
    """Tell the other processes that this run failed here.

    Returns:
        The error that began it, which may be another process's, and whether all failed alike. If not, this
        process can take part in nothing more: the others may be anywhere.
    """
    global _failures, _over
    if processes() == 1 or _store is None:
        return error, True
    _failures += 1
    keys = [f"failed/{_failures}/{number}" for number in range(processes())]
    began = f"parted/{_failures}"
    _store.set(keys[rank()], f"{type(error).__name__}: {error}")
    _over = not isinstance(error, Exception)  # stopped from outside, as all the others are
    if not _store.check([began]) and _until(lambda: bool(_store.check(keys)), SAME_FAULT_S):
        return error, True
    _over = True
    first = int(_store.compare_set(began, "", str(rank())))
    _leave()  # what the others wait for will never come: their waiting ends in an error
    if first != rank() and isinstance(error, Exception):
        error = RunFault(f"process {first} of {processes()} failed: {_store.get(keys[first]).decode()}")
    return error, False


def wait_for_failure_record() -> None:
    """Say, or wait for, that a failure is on record: torchrun stops all processes once one has ended."""
    key = f"written/{_failures}"
    if not _over or _store is None:
        return
    if is_main_process():
        _store.set(key, "")
    else:
        _until(lambda: bool(_store.check([key])), 4 * SAME_FAULT_S)


# --- the first process and those that follow it ---------------------------------------------------------


def announce_run(plan: Any, options: Any, name: str, code: str) -> None:
    """Tell the other processes which run starts, and by which code version. In those processes this does nothing."""
    if processes() > 1 and is_main_process():
        _join()
        _broadcast((plan, options, name, code))


def release_followers() -> None:
    """Let the other processes end; called by the first when its command has ended, however it did."""
    if processes() > 1 and not _over:
        with suppress(Exception):
            _join()
            _broadcast(None)
        _leave()


def follow_main(run: Callable[[Any, Any, str], Any], code: str) -> None:
    """Do this process's part of each run that the main process announces, until it releases its followers.

    Only the main process writes to the console. After a failure that all processes share, this one is ready for
    the next run.

    Args:
        run: takes plan, options and name.
        code: the code version here, which must be the main process's.
    """
    warnings.simplefilter("ignore")
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    with signals.listening():
        try:
            _join()
            while (announced := _broadcast(None)) is not None:
                plan, options, name, main_code = announced
                if main_code != code:
                    sys.exit(
                        f"process {rank()} has code version {code}, the main process {main_code}; "
                        "give every machine the same files"
                    )
                with suppress(Exception):
                    run(plan, options, name)
        except RankFailedAlone:
            sys.exit(1)
        except KeyboardInterrupt as stop:
            sys.exit(stop.exit_code if isinstance(stop, signals.Interrupted) else 130)
    _leave()


def _broadcast(value: Any) -> Any:
    """The first process's value, in all of them."""
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_walk)
    return box[0]


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _leave() -> None:
    from torch import distributed

    with suppress(Exception):
        distributed.destroy_process_group()
