"""One attempt at a plan: its record and its tracker from ``running`` to the end, whatever that is."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harness.errors import HarnessError, RankFailedAlone
from harness.pipeline import steps
from harness.pipeline.steps import Experiment
from harness.plan.spec import Options, Plan
from harness.record import provenance, store
from harness.runtime import distributed
from harness.trackers.base import start_tracker
from harness.training import checkpoints

log = logging.getLogger(__name__)


# What libraries warn of although the harness sees to it, or says it in the record.
SEEN_TO = (
    r".*changes the base weights of the model",  # noted in the record, and converted when saved
    r"`corda_config` specified but will be ignored",  # by that conversion, as it should be
    r"lora with eva initialization used with low_cpu_mem_usage=False",
    r"Full backward hook is firing when gradients",  # LoRA-GA looks at the outputs' gradients only
    r"Sparse invariant checks are implicitly disabled",
    r"inner dimension \(\d+\) is not aligned for fast kernel",  # of bitsandbytes: slower, the same numbers
    r"Adapter 'default': \d+ LoRA tensor\(s\) have invalid shape",  # AdaLoRA pruned all ranks of a layer
)


@contextmanager
def open_run(plan: Plan, options: Options, name: str, held: Callable[[], bool] = lambda: True) -> Iterator[Experiment]:
    """A run's record from ``running`` to its end, and its tracker beside it, closed with the true state.

    A failure is written into the record, then raised on.

    Args:
        held: whether this process may still publish; asked before files that another could have written meanwhile.
    """
    distributed.announce_run(plan, options, name, provenance.code_version())
    former, fields = distributed.broadcast_from_main(lambda: _started(plan, options))
    this = Experiment(plan, options, name, fields)
    this.held = held
    try:
        if options.rerun and distributed.is_main_process():
            checkpoints.remove_checkpoints(this.folder / steps.CHECKPOINTS)
        this.tracker = start_tracker(
            options.tracker,
            fingerprint=plan.fingerprint,
            config=plan.as_dict(),
            group=options.sweep_name or "single",
            name=name or plan.method,
            tags=[plan.method, plan.model.name],
            run_id=_resumed_id(former, options),
        )
        fields["tracker"] = {"name": options.tracker.name.value, "id": this.tracker.id}
        with _without_warnings(SEEN_TO):
            yield this
        distributed.broadcast_from_main(lambda: _conclude(this))
    except BaseException as error:
        began, alike = distributed.announce_failure(error)
        _fail(this, began)
        distributed.wait_for_failure_record()
        if alike or isinstance(error, KeyboardInterrupt):
            raise
        raise RankFailedAlone from began
    this.tracker.finish(ok=True)


@contextmanager
def _without_warnings(messages: Sequence[str]) -> Iterator[None]:
    """Without the warnings that begin like one of ``messages``; all others are shown."""
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message=message)
        yield


def _started(plan: Plan, options: Options) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The record of an earlier attempt, and the one that takes its place."""
    former = store.read_record(options.runs_dir, plan.fingerprint)
    seeds = {"seed": plan.seed, "data_split_seed": plan.data.split_seed}
    return former, store.start_record(options.runs_dir, plan.fingerprint, plan.method, plan.as_dict(), seeds)


def _conclude(this: Experiment) -> None:
    """Publish the finished record, where it is still this process's to publish."""
    shutil.rmtree(this.folder / steps.SCRATCH, ignore_errors=True)
    this.tracker.summary(this.summary())
    this.progress.end()
    this.check_held()
    store.write_record(this.options.runs_dir, store.mark_finished(this.fields))
    checkpoints.remove_checkpoints(this.folder / steps.CHECKPOINTS)


def _fail(this: Experiment, error: BaseException) -> None:
    """Write the failure into the record and close the tracker; neither may hide the error itself."""
    ours = distributed.is_main_process() and this.held()
    if ours:
        shutil.rmtree(this.folder / steps.SCRATCH, ignore_errors=True)
        this.progress.end()
    try:
        this.check_base()
        if ours:
            store.write_record(this.options.runs_dir, store.mark_failed(this.fields, error))
    except HarnessError as second:
        log.error("%s", second)
    if this.tracker is not None:
        this.tracker.finish(ok=False)


def _resumed_id(former: dict[str, Any] | None, options: Options) -> str | None:
    """The tracker's run to go on with: that of an interrupted attempt under the same tracker."""
    if former is None or former["status"] != "interrupted" or former["tracker"] is None:
        return None
    same = former["tracker"]["name"] == options.tracker.name.value
    return former["tracker"]["id"] if same else None
