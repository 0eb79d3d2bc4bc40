"""One attempt at a plan: its record and its tracker from ``running`` to the end, whatever that is."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from harness.config.schema import Keep
from harness.errors import HarnessError, HeldByAnotherProcess, RankFailedAlone, first_line
from harness.pipeline.cache import ProcessCache
from harness.pipeline.fill import fill
from harness.plan.extensions import used_code
from harness.plan.spec import Options, Plan
from harness.record import provenance, store
from harness.record.files import remove
from harness.record.labels import Labels
from harness.record.progress import ProgressWriter
from harness.record.run_record import RunRecord
from harness.report.run_names import run_name
from harness.runtime import distributed
from harness.trackers.base import NoRun, TrackerRun, start_tracker, tracked
from harness.trackers.figures import config_of
from harness.trackers.send import send_result
from harness.training.checkpoints import CHECKPOINTS, has_checkpoint, remove_checkpoints

log = logging.getLogger(__name__)


T = TypeVar("T")


# Warnings of libraries about what the harness takes care of, or says in the record.
EXPECTED_WARNINGS = (
    r".*changes the base weights of the model",  # noted in the record, and converted when saved
    r"`corda_config` specified but will be ignored",  # by that conversion, as it should be
    r"lora with eva initialization used with low_cpu_mem_usage=False",
    r"Full backward hook is firing when gradients",  # LoRA-GA looks at the outputs' gradients only
    r"Sparse invariant checks are implicitly disabled",
    r"inner dimension \(\d+\) is not aligned for fast kernel",  # of bitsandbytes: slower, the same numbers
    r"Adapter 'default': \d+ LoRA tensor\(s\) have invalid shape",  # AdaLoRA pruned all ranks of a layer
)


class Attempt:
    """What accompanies a run from its first step to its last: record, progress, tracker, and who may publish."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        name: str,
        record: RunRecord,
        cache: ProcessCache,
        held: Callable[[], bool],
    ) -> None:
        self.plan, self.options, self.name = plan, options, name
        self.record, self.cache, self.held = record, cache, held
        self.kept_threads: int | None = None  # of the attempt that this one resumes
        self.tracker: TrackerRun = NoRun()  # until it is started
        self.folder = store.record_path(options.runs_dir, plan.fingerprint).parent
        self.scratch, self.checkpoints = self.folder / "scratch", self.folder / CHECKPOINTS
        self.progress = ProgressWriter(self.folder, run_name(plan, name))

    def keep(self, value: T) -> T:
        """Put what a step made into the record, and pass it on."""
        fill(value, self.record)
        return value

    def enter(self, stage: str) -> None:
        """Tell other processes which stage begins."""
        self.progress.enter(stage)

    def note(self, text: str) -> None:
        """Say on the console and in the record what differs from what a reader would expect."""
        store.add_note(self.record, text)

    def require_held(self) -> None:
        """Raise HeldByAnotherProcess if another process has taken the run over: then its files are not ours."""
        if not self.held():
            raise HeldByAnotherProcess(
                f"another process has taken over {self.plan.fingerprint}; this one writes nothing more"
            )

    def check_base(self) -> None:
        """Note it if the shared base model is no longer bit for bit what was loaded."""
        changed = self.cache.check_base()
        if changed:
            self.note(changed)

    def publish(self) -> None:
        """Write the finished record if the run is still this process's; only the main process does."""
        distributed.broadcast_from_main(self._publish)

    def _publish(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.progress.end()
        self.require_held()
        self.record.mark_finished()
        self.record.kept = self.options.keep.value
        store.write_record(self.options.runs_dir, self.record)
        content = self.record.as_dict()
        self._tell_tracker(lambda: send_result(self.tracker, self.options.tracker, content, self.folder))
        # Afterwards, so that a run that is killed here is finished all the same.
        if self.options.keep is Keep.record:
            remove(self.folder / store.ADAPTER)
        if self.options.keep is not Keep.all:
            remove_checkpoints(self.checkpoints)

    def _tell_tracker(self, tell: Callable[[], None]) -> None:
        """Show the tracker what is on record by now; the result does not depend on whether it takes it."""
        try:
            tell()
        except Exception as error:  # of W&B, Trackio or TensorBoard, whose errors have no common kind
            log.warning(
                "%s %s: the tracker could not store the result (%s); the record has it",
                *(self.record.method, self.record.fingerprint[:8], first_line(error)),
            )

    def fail(self, error: BaseException) -> None:
        """Write the failure into the record and close the tracker; neither may hide the error itself."""
        ours = distributed.is_main_process() and self.held()
        if ours:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.progress.end()
        try:
            self.check_base()
            if ours:
                self.record.mark_failed(error)
                file = store.write_record(self.options.runs_dir, self.record)
                self._tell_tracker(lambda: self.tracker.record(file))
        except HarnessError as second:
            log.error("%s", second)
        self.tracker.finish(ok=False)


@contextmanager
def open_run(
    plan: Plan, options: Options, name: str, cache: ProcessCache, held: Callable[[], bool]
) -> Iterator[Attempt]:
    """An attempt at the plan, its record ``running``; a failure is written into the record, then raised.

    Within, the caller runs the steps and publishes.

    Args:
        held: whether this process may still publish; asked before files are written that another process could
            have written meanwhile.
    """
    distributed.announce_run(plan, options, name, provenance.code_version())
    former, record, kept = distributed.broadcast_from_main(lambda: _start(plan, options))
    this = Attempt(plan, options, name, record, cache, held)
    this.kept_threads = kept
    try:
        if options.rerun and distributed.is_main_process():
            remove_checkpoints(this.checkpoints)
        group = options.sweep_name or "single"
        this.tracker = start_tracker(
            options.tracker,
            fingerprint=plan.fingerprint,
            config=config_of(record.as_dict()),
            group=group,
            name=run_name(plan, name),
            tags=[plan.method, plan.model.name],
            run_id=_resumed_id(former, options),
        )
        record.tracker = tracked(options.tracker, this.tracker, group)
        with _without_warnings(EXPECTED_WARNINGS):
            yield this
    except BaseException as error:
        began, alike = distributed.announce_failure(error)
        this.fail(began)
        distributed.wait_for_failure_record()
        if alike or isinstance(error, KeyboardInterrupt):
            raise
        raise RankFailedAlone from began
    this.tracker.finish(ok=True)


@contextmanager
def _without_warnings(messages: Sequence[str]) -> Iterator[None]:
    """Hide the warnings that match one of these patterns from their start; show all others."""
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message=message)
        yield


def _start(plan: Plan, options: Options) -> tuple[dict[str, Any] | None, RunRecord, int | None]:
    """The record of an earlier attempt, the one that replaces it, and the threads that it keeps."""
    former = store.read_record(options.runs_dir, plan.fingerprint)
    seeds = {"seed": plan.seed, "data_split_seed": plan.data.split_seed}
    record = store.start_record(options.runs_dir, plan.fingerprint, plan.method, plan.as_dict(), seeds)
    if extensions := used_code(plan, options.tracker):
        record.extensions = extensions
        store.write_record(options.runs_dir, record)
    labels = Labels(options.note, options.tags).added_to(former)
    record.note, record.tags, record.sweep = labels["note"], labels["tags"], options.sweep_name
    kept = _kept_threads(options, former, record)
    if kept is not None:  # on disk at once: the next attempt keeps them, too, if this one is killed early
        record.device["threads"] = kept
        store.write_record(options.runs_dir, record)
    return former, record, kept


def _kept_threads(options: Options, former: dict[str, Any] | None, record: RunRecord) -> int | None:
    """Threads of the attempt whose checkpoint this one goes on from: another number would give other last digits."""
    if former is None or options.rerun or former["code"]["version"] != record.code.version:
        return None
    folder = store.record_path(options.runs_dir, record.fingerprint).parent / CHECKPOINTS
    return former["device"].get("threads") if has_checkpoint(folder) else None


def _resumed_id(former: dict[str, Any] | None, options: Options) -> str | None:
    """The tracker's run to continue: that of an interrupted or pruned attempt under the same tracker."""
    if former is None or former["status"] not in ("interrupted", "pruned") or former["tracker"] is None:
        return None
    same = former["tracker"]["name"] == options.tracker.name
    return former["tracker"]["id"] if same else None
