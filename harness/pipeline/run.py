"""One experiment, from plan to record."""

from collections.abc import Callable
from typing import Any

from harness.plan.spec import Options, Plan


def run(plan: Plan, options: Options, name: str, held: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """One experiment, from plan to record; ``held`` says whether the run is still this process's to publish."""
    from harness.pipeline import lifecycle

    with lifecycle.open_run(plan, options, name, held) as this:
        base = this.load()
        rows = this.tokenise(base)
        before = this.baseline(base, rows)
        model = this.tune(base, rows)
        this.save(model)
        after = this.score(model, base, rows)
        this.predictions(rows, before, after)
        this.check_base()
    return this.fields
