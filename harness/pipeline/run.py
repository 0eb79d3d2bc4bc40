"""One run, from plan to record."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.pipeline.cache import ProcessCache
from harness.plan.spec import Options, Plan

if TYPE_CHECKING:
    from harness.training.packed.member import Member


def run(
    plan: Plan,
    options: Options,
    name: str,
    held: Callable[[], bool] = lambda: True,
    *,
    cache: ProcessCache,
    member: "Member | None" = None,
) -> dict[str, Any]:
    """Train and score one plan; return its record, which is written whatever the end is.

    Args:
        name: the run's, on the console and in the tracker.
        held: whether this process may still publish the run: ``Lock.held``.
        cache: what the runs of this process share.
        member: of a pack, whose runs train together; None: the run trains alone.
    """
    from harness.runtime import libraries, threads

    libraries.load()
    from harness.pipeline import steps
    from harness.pipeline.lifecycle import open_run
    from harness.pipeline.tune import tune

    with open_run(plan, options, name, cache, held) as this:
        this.enter("loading")
        computing = this.keep(threads.for_run(options.threads, this.kept_threads))
        shared = this.keep(steps.load(plan, cache, computing.count))
        rows = this.keep(steps.tokenize(plan, cache, shared.base))
        tuned = tune(this, shared.base, rows, member)
        this.keep(steps.save(plan, tuned, this.folder, this.require_held))
        # Only now: what is wrong with a training shows at once, and a run that ends early needs no scores.
        this.enter("scoring before")
        code, told = this.record.code.version, this.progress.scored
        before = this.keep(steps.baseline(plan, cache, shared, rows, options.runs_dir, code, told))
        this.enter("scoring after")
        after = this.keep(steps.score(plan, tuned.model, shared.base, rows, told))
        this.keep(steps.write_predictions(this.folder, this.tracker, rows.scored[plan.scoring.split], before, after))
        this.check_base()
        this.publish()
    return this.record.as_dict()
