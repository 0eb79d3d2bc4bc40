"""Several processes for one run, one per device, started by ``torchrun`` or ``accelerate launch``.

The main process is the command: only it reads the configuration, decides what runs, and writes. It announces each
run to the others, which follow it. Within a run all take the same steps; what only one may do (records, scores,
files) the main process does while the others wait, in ``broadcast_from_main``; how they share training is in
``training.sharding``. A process that fails alone ends the command, and the record says why. With one process,
everything here is a plain call.

torch is imported only if there are several processes.
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

LONGEST_WAIT = timedelta(hours=12)  # the others wait while the main process scores


SAME_FAULT_S = 5.0  # a fault that all processes share shows in all of them within this time


T = TypeVar("T")


def processes() -> int:
    """How many processes share this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if processes() > 1 else 0


def is_main_process() -> bool:
    """Whether this is the process that writes: of several processes that share a run, no other does."""
    return rank() == 0


class _Membership:
    """This process among the others. Of the process, as torch.distributed's default group is."""

    store: Any = None  # what the processes tell each other outside the collectives; None: not joined yet
    group: Any = None  # in which they wait for each other, on the CPU whatever they train on
    failures = 0  # runs that failed so far, the same number in all processes
    over = False  # whether nothing more can be shared


_here = _Membership()


# --- steps taken together ---------------------------------------------------------------------------------


def _join() -> Any:
    """``torch.distributed`` with all processes in it, joined on the first call."""
    import torch
    from torch import distributed

    if _here.store is None:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(local_rank())
        _here.store, _, _ = next(iter(distributed.rendezvous("env://", rank(), processes(), timeout=LONGEST_WAIT)))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=distributed.PrefixStore("harness", _here.store),
            rank=rank(),
            world_size=processes(),
        )
        _here.group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    return distributed


def broadcast_from_main(decide: Callable[[], T]) -> T:
    """What ``decide`` returns in the main process, in all of them; an error there is raised in all of them."""
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
        except Exception:  # an exception class of a library may need more than its text
            return None, RunFault(f"{type(error).__name__}: {error}")
        return None, error


def gather(value: T) -> list[T]:
    """The value of every process, by rank."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    _join().all_gather_object(values, value, group=_here.group)
    return values


def all_true(flag: bool) -> bool:
    """Whether the flag is true in all processes; cheap enough for each batch."""
    if processes() == 1:
        return flag
    import torch

    distributed = _join()
    shared = torch.tensor(int(flag))
    distributed.all_reduce(shared, op=distributed.ReduceOp.MIN, group=_here.group)
    return bool(shared)


def announce_failure(error: BaseException) -> tuple[BaseException, bool]:
    """Tell the other processes that this run failed here.

    Returns:
        The error that came first, which may be another process's, and whether all failed alike. If not, this
        process can share nothing more: the others may be anywhere.
    """
    if processes() == 1 or _here.store is None:
        return error, True
    store = _here.store
    _here.failures += 1
    keys = [f"failed/{_here.failures}/{number}" for number in range(processes())]
    failed_alone = f"failed_alone/{_here.failures}"
    store.set(keys[rank()], f"{type(error).__name__}: {error}")
    _here.over = not isinstance(error, Exception)  # stopped from outside, as all the others are
    if not store.check([failed_alone]) and _until(lambda: bool(store.check(keys)), SAME_FAULT_S):
        return error, True
    _here.over = True
    first = int(store.compare_set(failed_alone, "", str(rank())))
    _leave()  # what the others wait for will never come: their waiting ends in an error
    if first != rank() and isinstance(error, Exception):
        error = RunFault(f"process {first} of {processes()} failed: {store.get(keys[first]).decode()}")
    return error, False


def wait_for_failure_record() -> None:
    """Let the main process write its record before any process ends: torchrun stops all once one has ended."""
    key, store = f"written/{_here.failures}", _here.store
    if not _here.over or store is None:
        return
    if is_main_process():
        store.set(key, "")
    else:
        _until(lambda: bool(store.check([key])), 4 * SAME_FAULT_S)


# --- the main process and its followers -------------------------------------------------------------------


def announce_run(plan: Any, options: Any, name: str, code: str) -> None:
    """Tell the other processes which run starts, and by which code version. In those processes this does nothing."""
    if processes() > 1 and is_main_process():
        _join()
        _broadcast((plan, options, name, code))


def release_followers() -> None:
    """Let the other processes end; the main process calls this when its command has ended, however it did."""
    if processes() > 1 and not _here.over:
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
    """The main process's value, in all of them."""
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_here.group)
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
