"""What a plan costs on a device: memory by part, operations, time; what fits, and on how many devices."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from harness.errors import ModelFault
from harness.estimate import costs
from harness.estimate.footprint import Batch, Footprint, footprint
from harness.estimate.lengths import Lengths, lengths_of
from harness.models import skeleton as model_skeleton
from harness.plan import devices
from harness.plan.devices import Device
from harness.plan.spec import Options, Plan, digest, optimizer_steps

Clock = Callable[[], float]

MOST_DEVICES = 1024  # beyond which a run is said not to fit
TWICE = 2  # blocks of FSDP that are whole at a time: the one that computes and the next


@dataclass(frozen=True)
class Cost:
    """One plan on one device."""

    batch: Batch
    memory: Footprint
    checkpointed: Footprint  # the same with the other value of trainer.gradient_checkpointing
    adapter_bytes: int | None  # of the saved adapter; None: it cannot be counted
    train_flops: float | None  # None: the number of steps is not known
    score_flops: float | None
    seconds: float | None  # to train and to score, at the device's expected throughput
    micro_batch: int  # rows of the largest pass that fits; 0: none
    ddp: int | None  # fewest devices on which it fits; None: on no number of them
    fsdp: int | None
    usable: int  # bytes of one device

    @property
    def fits(self) -> bool:
        """Whether one device holds the run as it is."""
        return self.memory.peak <= self.usable


class Planner:
    """Costs the plans of one command; those that differ in seed, rate or steps are followed once."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._device: Device | None = None
        self._footprints: dict[str, Footprint] = {}
        self.notes: list[str] = []

    def device(self, plan: Plan) -> Device:
        """The device of ``plan.device``; this machine is measured once."""
        if self._device is None:
            given = self._options.plan.device
            self._device = measured_here(self.dtype(plan)) if given == devices.HERE else devices.read_device(given)
        return self._device

    def dtype(self, plan: Plan) -> str:
        """What the plan computes in on the device."""
        found = self._options.planned_dtype or plan.model.dtype.value
        return "float32" if found == "auto" else found

    def cost(self, plan: Plan) -> Cost:
        """Raises ``ModelFault`` if the method does not fit the model, or cannot be followed without weights."""
        device, lengths = self.device(plan), self._lengths(plan)
        rows, labels = plan.trainer.batch_size, lengths.most_labels
        batch = Batch(rows, lengths.longest, labels)
        memory = self._footprint(plan, batch)
        flipped = self._footprint(plan, batch, not plan.trainer.gradient_checkpointing)
        other = self._footprint(plan, replace(batch, rows=rows // 2 if rows > 1 else 2))
        train, score = self._train_flops(plan, memory, batch, lengths), _score_flops(plan, memory, batch, lengths)
        known = train is not None and score is not None
        speed = device.flops_per_s(self.dtype(plan))
        return Cost(
            batch=batch,
            memory=memory,
            checkpointed=flipped,
            adapter_bytes=_adapter_bytes(plan),
            train_flops=train,
            score_flops=score,
            seconds=((train or 0.0) / device.count + (score or 0.0)) / speed if known else None,
            micro_batch=largest_batch(memory, batch.rows, other, rows // 2 if rows > 1 else 2, device.usable),
            ddp=devices_of_ddp(memory, device.usable),
            fsdp=devices_of_fsdp(memory, device.usable, _blocks(plan)),
            usable=device.usable,
        )

    def _lengths(self, plan: Plan) -> Lengths:
        lengths = lengths_of(plan)
        tokens = self._options.plan.tokens
        if tokens is not None:
            lengths = lengths.of_at_most(tokens)
        if lengths.note and lengths.note not in self.notes:
            self.notes.append(lengths.note)
        return lengths

    def _footprint(self, plan: Plan, batch: Batch, checkpointing: bool | None = None) -> Footprint:
        whole = plan.as_dict()
        trainer = whole["trainer"]
        used = ("objective", "gradient_checkpointing", "gradient_accumulation_steps", "kernels", "parallel")
        parts = [whole["model"], whole["method"], whole["settings"], [trainer[key] for key in used]]
        generation = whole["scoring"]["generation"]
        dtype = self.dtype(plan)
        key = digest([*parts, vars(batch), checkpointing, dtype, generation, bool(plan.scoring.metrics)])
        if key not in self._footprints:
            self._footprints[key] = footprint(plan, dtype, batch, checkpointing)
        return self._footprints[key]

    @staticmethod
    def _train_flops(plan: Plan, memory: Footprint, batch: Batch, lengths: Lengths) -> float | None:
        """Of the whole training, without padding."""
        trainer = plan.trainer
        if lengths.train is None and trainer.max_steps is None:
            return None
        passes = optimizer_steps(trainer, lengths.train or 0) * trainer.gradient_accumulation_steps
        return passes * trainer.parallel.processes * at_length(memory.flops, memory.attention_flops, batch, lengths)


def at_length(flops: float, attention: float, batch: Batch, lengths: Lengths) -> float:
    """Operations of a pass over rows of mean length: most rise with the tokens, attention with their square."""
    share = lengths.mean / batch.tokens
    return (flops - attention) * share + attention * share**2


def _score_flops(plan: Plan, memory: Footprint, batch: Batch, lengths: Lengths) -> float | None:
    """Losses and answers, before and after training; each written token is one more that is read."""
    if lengths.scored is None:
        return None
    per_row = at_length(memory.forward_flops, memory.attention_flops / 3.5, batch, lengths) / batch.rows
    answers = 0.0
    if plan.scoring.metrics:
        answers = (lengths.mean - lengths.labels + plan.scoring.generation.max_new_tokens) / lengths.mean
    return 2 * lengths.scored * per_row * (1 + answers)


def largest_batch(memory: Footprint, rows: int, other: Footprint, other_rows: int, usable: int) -> int:
    """Rows of the largest pass that fits: the peak is a straight line over the rows of a pass."""
    slope = (memory.during - other.during) / (rows - other_rows)
    start = memory.weights + memory.adapter + memory.optimizer + memory.during - slope * rows
    if start + slope > usable:
        return 0
    return int((usable - start) // slope) if slope > 0 else rows


def devices_of_ddp(memory: Footprint, usable: int) -> int | None:
    """One if it fits with the buckets in which gradients are exchanged: each device has everything."""
    return 1 if memory.peak + memory.gradients <= usable or memory.peak <= usable else None


def devices_of_fsdp(memory: Footprint, usable: int, blocks: int) -> int | None:
    """The fewest over which weights, gradients and optimizer states have to be sharded; activations are not."""
    shared = memory.weights + memory.adapter + memory.gradients + memory.optimizer
    each = memory.activations + memory.logits + TWICE * (memory.weights + memory.adapter) / max(1, blocks)
    if memory.peak <= usable:
        return 1
    left = usable - each
    needed = math.ceil(shared / left) if left > 0 else MOST_DEVICES + 1
    return max(2, needed) if needed <= MOST_DEVICES else None


def _blocks(plan: Plan) -> int:
    return int(model_skeleton.load_config(plan.model).get_text_config().num_hidden_layers)


def _adapter_bytes(plan: Plan) -> int | None:
    try:
        return costs.stored_bytes(plan)
    except ModelFault:
        return None


def measured_here(dtype: str, clock: Clock = time.perf_counter) -> Device:
    """This machine: its memory, and the throughput of a matrix product in ``dtype`` (a third of a second)."""
    import psutil
    import torch

    cuda = torch.cuda.is_available()
    place = "cuda" if cuda else "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory if cuda else psutil.virtual_memory().total
    size = 4096 if cuda else 512
    one = torch.ones((size, size), dtype=getattr(torch, dtype), device=place)
    wait = torch.cuda.synchronize if cuda else _nothing
    speed = 2 * size**3 / _seconds_of(partial(torch.mm, one, one), wait, clock)
    return Device("this machine", int(memory), {dtype: speed / 1e12}, utilization=0.5)


def _nothing() -> None:
    """A CPU has computed when the call returns."""


def _seconds_of(product: Callable[[], object], wait: Callable[[], None], clock: Clock, enough: float = 0.3) -> float:
    """Of one product, after one that warms up."""
    product()
    wait()
    done, started, spent = 0, clock(), 0.0
    while spent < enough:
        product()
        wait()
        done, spent = done + 1, clock() - started
    return spent / done
