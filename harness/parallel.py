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
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from harness import provenance, stops
from harness.errors import ConfigFault, Parted, RunFault
from harness.schema import Config, Quantization, Stage, Strategy

LONGEST_WAIT = timedelta(hours=12)  # the others wait while the first scores
PATIENCE_S = 5.0  # within which a fault that all processes have shows in all of them
COMMAND = "torchrun --nproc-per-node {} -m harness ..."

NOT_SHARED = {
    "cpt": "takes the mean of each batch for itself",
    "diff_pruning": "fixes what it trains in the midst of training, each process for itself",
}
# Methods that need whole weights or gradients while they train.
NOT_SHARDED = {
    "adalora": "prunes ranks by whole weights and gradients",
    "vblora": "shares one bank of vectors among all layers, each a shard of its own",
}

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


def leads() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


# --- what cannot work -----------------------------------------------------------------------------------


def faults(config: Config) -> Iterator[str]:
    """Faults of ``trainer.parallel`` with this command, model and method."""
    parallel, here = config.trainer.parallel, processes()
    strategy = parallel.strategy.value
    if parallel.processes < 1:
        yield f"trainer.parallel.processes={parallel.processes} is too small; use at least 1"
    elif here > 1 and config.stage is not Stage.run:
        yield f"stage={config.stage.value} works in one process, and WORLD_SIZE={here}; start it without torchrun"
    elif here > 1 and parallel.strategy is Strategy.none:
        yield (
            f"WORLD_SIZE={here}: {here} processes would each do the same run, for trainer.parallel.strategy=none; add "
            "trainer/parallel=ddp, fsdp, deepspeed_zero2 or deepspeed_zero3, or start one process"
        )
    elif parallel.strategy is not Strategy.none:
        if config.stage is Stage.run and here == 1:
            yield (
                f"trainer.parallel.strategy={strategy} needs a process for each device; start them with "
                + COMMAND.format(max(parallel.processes, 2)).replace("...", f"trainer/parallel={strategy} ...")
            )
        elif here > 1 and parallel.processes != here:
            yield f"trainer.parallel.processes={parallel.processes} but WORLD_SIZE={here}; leave the setting out"
        yield from _unfit(config)


def _unfit(config: Config) -> Iterator[str]:
    """What several processes, or this strategy, cannot do."""
    strategy, method = config.trainer.parallel.strategy, config.peft.method
    sharded = shards(strategy, config.trainer.parallel.deepspeed)
    if config.model.device_map is not None:
        yield (
            f"model.device_map={config.model.device_map} spreads one process over the devices, and trainer.parallel."
            f"strategy={strategy.value} gives each process one; set model.device_map=null or trainer/parallel=none"
        )
    if config.model.device not in ("auto", "cpu", "cuda"):
        yield f"model.device={config.model.device} is one device for all processes; set model.device=auto"
    if method in NOT_SHARED:
        yield f"peft={method} {NOT_SHARED[method]}, which processes cannot share; use one, with trainer/parallel=none"
    if strategy is not Strategy.ddp and method in NOT_SHARDED:
        yield f"peft={method} {NOT_SHARDED[method]}; {strategy.value} has only shards: use trainer/parallel=ddp"
    if strategy is not Strategy.ddp and method == "lora" and config.lora.lora_fa:
        yield f"lora.lora_fa=true multiplies whole weights in its optimizer; {strategy.value} has shards; use ddp"
    if sharded and config.model.quantization is not Quantization.none:
        yield (
            f"model.quantization={config.model.quantization.value} packs weights that {strategy.value} cannot cut; use "
            "trainer/parallel=ddp, or model.quantization=none"
        )
    if strategy is Strategy.deepspeed:
        yield from _deepspeed(config)


def _deepspeed(config: Config) -> Iterator[str]:
    from importlib.util import find_spec

    stage = config.trainer.parallel.deepspeed.get("zero_optimization", {}).get("stage")
    if stage not in (1, 2, 3):
        yield (
            f"trainer.parallel.deepspeed.zero_optimization.stage={stage} is none of 1, 2, 3; start from "
            "trainer/parallel=deepspeed_zero2 or deepspeed_zero3"
        )
    if config.stage is Stage.run and find_spec("deepspeed") is None:
        yield "trainer.parallel.strategy=deepspeed needs the package deepspeed; pip install deepspeed, or use fsdp"


def shards(strategy: Strategy, deepspeed: dict[str, Any]) -> bool:
    """Whether training weights are cut into shards, so that no process has a whole one."""
    return strategy is Strategy.fsdp or (
        strategy is Strategy.deepspeed and deepspeed.get("zero_optimization", {}).get("stage") == 3
    )


def refuse_engine(name: str) -> None:
    """Raise ConfigFault: launchers and sweepers that start processes of their own, under torchrun."""
    if processes() > 1:
        raise ConfigFault(
            f"{name} starts processes of its own, and WORLD_SIZE={processes()}: torchrun has started this one; "
            "use hydra/launcher=basic and hydra/sweeper=basic there"
        )


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


def agreed(decide: Callable[[], T]) -> T:
    """What the first process finds, in all of them; an error there is everyone's error."""
    if processes() == 1:
        return decide()
    _join()
    value, error = _spread(_outcome(decide) if leads() else None)
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


def gathered(value: T) -> list[T]:
    """This value of every process, by rank."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    _join().all_gather_object(found, value, group=_walk)
    return found


def every(flag: bool) -> bool:
    """Whether it holds in all processes; cheap enough for each batch."""
    if processes() == 1:
        return flag
    import torch

    distributed = _join()
    shared = torch.tensor(int(flag))
    distributed.all_reduce(shared, op=distributed.ReduceOp.MIN, group=_walk)
    return bool(shared)


def part(error: BaseException) -> tuple[BaseException, bool]:
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
    if not _store.check([began]) and _until(lambda: bool(_store.check(keys)), PATIENCE_S):
        return error, True
    _over = True
    first = int(_store.compare_set(began, "", str(rank())))
    _leave()  # what the others wait for will never come: their waiting ends in an error
    if first != rank() and isinstance(error, Exception):
        error = RunFault(f"process {first} of {processes()} failed: {_store.get(keys[first]).decode()}")
    return error, False


def written() -> None:
    """Say, or wait for, that a failure is on record: torchrun stops all processes once one has ended."""
    key = f"written/{_failures}"
    if not _over or _store is None:
        return
    if leads():
        _store.set(key, "")
    else:
        _until(lambda: bool(_store.check([key])), 4 * PATIENCE_S)


# --- the first process and those that follow it ---------------------------------------------------------


def announce(plan: Any, options: Any, name: str) -> None:
    """Tell the other processes which run begins. In them, which are told, this does nothing."""
    if processes() > 1 and leads():
        _join()
        _spread((plan, options, name, provenance.code_version()))


def dismiss() -> None:
    """Let the other processes end; called by the first when its command has ended, however it did."""
    if processes() > 1 and not _over:
        with suppress(Exception):
            _join()
            _spread(None)
        _leave()


def follow(run: Callable[..., Any]) -> None:
    """The course of any process but the first: its part of each run that is announced, until it is dismissed.

    The first one speaks for all; a fault that all had alike leaves this one ready for the next run.
    """
    warnings.simplefilter("ignore")
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    with stops.listening():
        try:
            _join()
            while (told := _spread(None)) is not None:
                plan, options, name, code = told
                if code != provenance.code_version():
                    sys.exit(f"process {rank()} has other sources than the first; give every machine the same files")
                with suppress(Exception):
                    run(plan, options, name)
        except Parted:
            sys.exit(1)
        except KeyboardInterrupt as stop:
            sys.exit(stop.exit_code if isinstance(stop, stops.Interrupted) else 130)
    _leave()


def _spread(value: Any) -> Any:
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
