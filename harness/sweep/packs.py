"""Runs of a sweep that train together: ``hydra/launcher=packed``.

The runs of a pack take turns in this thread, as greenlets: each is ``run_cell`` as it would be alone, until its
Trainer hands a batch over (``harness.training.packed``). When all of them wait there, their batches are computed in
one pass, and they continue in turn. A run that ends makes room for the next plan of the same kind.
"""

import logging
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import first_line
from harness.pipeline.cache import ProcessCache
from harness.runtime import memory, signals
from harness.sweep.cells import Cell
from harness.sweep.claim import run_cell
from harness.sweep.launchers.packed import Packed
from harness.sweep.outcome import Outcome, Status, outcome_of_error
from harness.sweep.worklist import Worklist
from harness.training.packed.eligible import pack_key, why_alone

if TYPE_CHECKING:
    import torch

    from harness.models.base import Base
    from harness.training.packed.ambient import Ambient
    from harness.training.packed.host import Host
    from harness.training.packed.member import Answer, Batch

log = logging.getLogger(__name__)


def run_packed(settings: Packed, cells: Sequence[Cell], folder: Path, worklist: Worklist) -> Iterator[Outcome]:
    """Run the cells in packs, and what cannot be packed one after another; a ``Dispatch`` once settings are bound."""
    for cells_of_kind in _by_kind(cells):
        yield from Pack(settings, cells_of_kind, worklist).outcomes()


def _by_kind(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that may train together, those of one seed side by side: their batches are equally long.

    What cannot be packed is alone in its list; the console says why, once for each reason.
    """
    kinds: dict[str, list[Cell]] = {}
    alone: dict[str, list[Cell]] = {}
    for cell in cells:
        reason = why_alone(cell.plan)
        if reason:
            alone.setdefault(reason, []).append(cell)
            kinds[cell.plan.fingerprint] = [cell]
        else:
            kinds.setdefault(pack_key(cell.plan, cell.options), []).append(cell)
    for reason, those in alone.items():
        log.info("%s; not packed: %s", _count(len(those)), reason)
    return [sorted(those, key=lambda cell: cell.plan.seed) for those in kinds.values()]


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


class _Turn:
    """One run of a pack: its greenlet, and what it waits for.

    Args:
        outside: the state of the process between the turns of all runs.
    """

    def __init__(self, cache: ProcessCache, cell: Cell, outside: "Ambient") -> None:
        from greenlet import greenlet

        from harness.training.packed.ambient import Ambient
        from harness.training.packed.member import Member

        self.cell = cell
        self.member: Member = Member(cell.plan.fingerprint, self._meet)
        self.ambient: Ambient = Ambient()
        self.batch: Batch | None = None  # handed over, not answered yet
        self.loss: torch.Tensor | None = None  # of that batch, if it was computed together with others
        self.share_s = 0.0  # of the time that this took
        self.alone = False  # it computes all of its passes itself from now on
        self.outcome: Outcome | None = None
        self._cache, self._outside, self._since = cache, outside, 0.0
        self._greenlet = greenlet(self._run)

    @property
    def name(self) -> str:
        """The run's key within its pack."""
        return self.member.fingerprint

    def resume(self) -> None:
        """Let the run continue until it hands over a batch or ends.

        Raises:
            KeyboardInterrupt: the process was told to stop; the run has recorded that.
        """
        with self._own_turn():
            self._greenlet.switch()

    def abandon(self, error: BaseException) -> None:
        """End the run where it waits; its record says that it was interrupted."""
        with self._own_turn(), suppress(BaseException):
            self._greenlet.throw(error)

    def train_alone(self, reason: str) -> None:
        """Let the run compute its own passes from now on; its record says why."""
        self.alone = True
        self.member.packed.notes.append(f"trained alone, not in one pass with other runs: {reason}")

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        """Put the run's own state of the process in place."""
        between = signals.exchange_deferral(False)
        self.ambient.enter()
        try:
            yield
        finally:
            self.ambient.leave()
            self._outside.enter()
            signals.exchange_deferral(between)

    def _run(self) -> None:
        from harness.pipeline.run import run

        started, fingerprint = time.monotonic(), self.cell.plan.fingerprint
        try:
            record = run_cell(self.cell, partial(run, cache=self._cache, member=self.member))
        except Exception as error:
            memory.drop_frames(error)  # the process goes on with other runs
            self.outcome = outcome_of_error(fingerprint, error, time.monotonic() - started)
            return
        self.outcome = Outcome(fingerprint, Status.finished, seconds=time.monotonic() - started, record=record)

    def _meet(self, batch: "Batch") -> "Answer":
        """Wait until the batch is computed; called by the run's Trainer, within its greenlet."""
        from harness.training.packed.member import Answer

        if self.alone:
            self.member.packed.alone += 1
            return Answer(None, 0.0)
        self.batch, self.loss, self.share_s, self._since = batch, None, 0.0, time.perf_counter()
        parent = self._greenlet.parent
        assert parent is not None
        parent.switch()
        self.batch = None
        self.member.packed.alone += self.loss is None
        return Answer(self.loss, time.perf_counter() - self._since - self.share_s)


class Pack:
    """Plans that can share their passes, and the runs of them that are under way."""

    def __init__(self, settings: Packed, cells: Sequence[Cell], worklist: Worklist) -> None:
        self._settings, self._worklist = settings, worklist
        self._waiting, self._turns = deque(cells), list[_Turn]()
        self._most: int | None = None if len(cells) > 1 else 1  # runs at a time; None: not decided yet
        self._stop: KeyboardInterrupt | None = None
        self._host: Host | None = None
        self._base: Base | None = None  # of the host
        self._outside: Ambient | None = None

    def outcomes(self) -> Iterator[Outcome]:
        """Run the plans; one outcome for each that was started.

        Raises:
            KeyboardInterrupt: the process was told to stop. Each run that was under way has recorded that, those in
                training after a checkpoint.
        """
        before = signals.exchange_deferral(False)
        with warnings.catch_warnings():  # runs change the filters in turn, and restore them in another order
            try:
                yield from self._outcomes()
            except BaseException as error:
                self._abandon(error)
                raise
            finally:
                signals.exchange_deferral(before)
        if self._stop is None and (signum := signals.requested()) is not None:
            self._stop = signals.interruption(signum)
        if self._stop is not None:
            raise self._stop

    def _outcomes(self) -> Iterator[Outcome]:
        while self._turns or self._may_start():
            while self._may_start() and len(self._turns) < (self._most or 1):
                cell = self._waiting.popleft()
                outcome = self._worklist.outcome_of_another(cell)
                if outcome is None:
                    yield from self._started(cell)
                else:
                    yield outcome
            if not self._turns:
                continue
            if self._most is None:
                self._decide(self._turns[0])
                continue
            self._compute()
            for turn in list(self._turns):
                yield from self._resumed(turn)

    def _may_start(self) -> bool:
        stopped = self._stop is not None or signals.requested() is not None
        return bool(self._waiting) and not self._worklist.over and not stopped

    def _started(self, cell: Cell) -> Iterator[Outcome]:
        from harness.training.packed.ambient import Ambient

        left = self._worklist.time_for([cell, *self._waiting])
        place, label = self._worklist.place_beside(len(self._turns)), self._worklist.label(cell)
        log.info("[%s] %s (%s); left: %s", place, label, cell.plan.fingerprint, left)
        self._outside = self._outside or Ambient()
        turn = _Turn(self._settings.cache, cell, self._outside)
        turn.alone = self._most == 1
        self._turns.append(turn)
        yield from self._resumed(turn)

    def _resumed(self, turn: _Turn) -> Iterator[Outcome]:
        """Let the run continue; its outcome if it ends."""
        try:
            turn.resume()
        except KeyboardInterrupt as stop:
            self._stop = self._stop or stop
            self._leave(turn)
            if signals.insisted():
                raise
        finally:
            # Whoever waits at its batch writes a checkpoint before it stops: a signal can wait for that.
            signals.exchange_deferral(any(each.ambient.deferring for each in self._turns if each.batch))
        if turn.outcome is not None:
            self._leave(turn)
            yield turn.outcome

    def _leave(self, turn: _Turn) -> None:
        self._turns.remove(turn)
        if self._host is not None:
            self._host.dismiss(turn.name)

    def _abandon(self, error: BaseException) -> None:
        """End the runs that are under way; none may stay in the middle of its training."""
        stop = error if isinstance(error, KeyboardInterrupt) else KeyboardInterrupt("the command ended early")
        while self._turns:
            self._turns.pop().abandon(stop)

    def _decide(self, first: _Turn) -> None:
        """How many runs share a pass, now that the first one has its rows."""
        from harness.estimate.packing import Together, runs_together
        from harness.training.fused import head

        assert first.batch is not None
        batch, count = first.batch, len(self._waiting) + 1
        device = batch.base.device.type
        found = (
            Together(1, batch.alone)
            if batch.alone
            else runs_together(
                batch.base.model.config,
                device,
                tokens=batch.tokens,
                most_tokens=batch.most_tokens,
                trained=sum(each.numel() for each in batch.model.parameters() if each.requires_grad),
                free_bytes=memory.free_bytes(device),
                element_bytes=batch.base.dtype.itemsize,
                logits_kept=not batch.fused or head.why_not(batch.base.model) is not None,
                wanted=self._settings.max_runs,
            )
        )
        packs = -(-count // found.runs)
        most = -(-count // packs)  # all packs about equally large
        how = "one after another" if most == 1 else f"up to {most} in one pass"
        log.info("%s, %s%s", _count(count), how, f": {found.why}" if packs > 1 else "")
        first.alone = most == 1
        self._most = most
        if most > 1 and device == "cpu":
            memory.keep_freed_memory()

    def _compute(self) -> None:
        """Compute the batches that wait in passes of several runs; what is left, each run computes itself."""
        for turn in self._turns:
            self._admit(turn)
        todo = [turn for turn in self._turns if not turn.alone]
        while len(todo) > 1:
            size = min(self._most or 1, len(todo))
            chunk, todo = todo[:size], todo[size:]
            if len(chunk) > 1 and self._runs_out_of_memory(chunk):
                self._most = -(-len(chunk) // 2)
                log.warning("out of memory: passes take at most %d runs from now on", self._most)
                todo = chunk + todo

    def _admit(self, turn: _Turn) -> None:
        from harness.training.packed.host import Host
        from harness.training.packed.layers import NotPackable

        assert turn.batch is not None
        if turn.alone:
            return
        if self._host is None:
            self._base, self._host = turn.batch.base, Host(turn.batch.base)
        try:
            if turn.batch.alone:
                raise NotPackable(turn.batch.alone)
            if turn.batch.base is not self._base:
                raise NotPackable("the base was loaded again meanwhile")
            if turn.ambient.threads != self._turns[0].ambient.threads:
                raise NotPackable(f"it keeps the {turn.ambient.threads} threads with which it began")
            self._host.admit(turn.name, turn.batch.model)
        except NotPackable as reason:
            turn.train_alone(str(reason))

    def _runs_out_of_memory(self, chunk: Sequence[_Turn]) -> bool:
        """Compute the batches of these runs in one pass, if they fit; any other failure makes them train alone."""
        from harness.training.packed.layers import NotPackable

        assert self._host is not None
        batches = {turn.name: turn.batch for turn in chunk if turn.batch is not None}
        started = time.perf_counter()
        chunk[0].ambient.use_threads()
        failure = ""
        try:
            losses = self._host.run(batches, {turn.name: turn.ambient for turn in chunk})
        except Exception as error:
            failure = str(error) if isinstance(error, NotPackable) else first_line(error)
            ran_out = memory.ran_out(error)
        if failure:  # outside the handler: the error holds on to the pass
            memory.release_memory()
            for turn in () if ran_out else chunk:
                turn.train_alone(failure)
            return ran_out
        seconds = time.perf_counter() - started
        tokens = {name: batch.inputs["input_ids"].numel() for name, batch in batches.items()}
        peak = memory.highest_since_reset(chunk[0].batch.base.device.type)  # type: ignore[union-attr]
        for turn in chunk:
            turn.loss, turn.share_s = losses[turn.name], seconds * tokens[turn.name] / sum(tokens.values())
            packed = turn.member.packed
            packed.passes += 1
            packed.runs = max(packed.runs, len(chunk))
            packed.others |= batches.keys() - {turn.name}
            packed.peak_bytes = max(packed.peak_bytes or 0, peak or 0) or None
        return False
