"""Train, score and compare PEFT methods: ``python -m harness -m peft=lora,ia3 lora.r=4,8,16``.

``run`` is the pipeline; ``task`` is what Hydra calls with each composed config; ``main`` is the command.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.plan import Options, Plan, read
from harness.schema import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(plan: Plan, options: Options, name: str, held: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """One experiment, from plan to record; ``held`` says whether the run is still this process's to publish."""
    from harness import attempt

    with attempt.opened(plan, options, name, held) as this:
        base = this.load()
        rows = this.tokenise(base)
        before = this.baseline(base, rows)
        model = this.tune(base, rows)
        this.save(model)
        after = this.score(model, base, rows)
        this.predictions(rows, before, after)
        this.check_base()
    return this.fields


def task(composed: "DictConfig") -> dict[str, Any] | None:
    """One composed config. A sweep's launcher calls this once for each unique plan."""
    from harness import ask, cells, export, status, sweep

    plan, options = read(composed)
    cell, in_sweep = cells.cell_from_hydra(plan, options)
    match options.stage:
        case Stage.run:
            return cells.run_cell(cell, run) if in_sweep else sweep.run_single(cell, run)
        case Stage.plan:
            sweep.show_plan([cell])
        case Stage.generate:
            ask.show(options)
        case Stage.export:
            export.write(options)
        case Stage.score:
            export.score(options)
        case Stage.report:
            sweep.show_all(options.runs_dir)
        case Stage.status:
            status.show(options.runs_dir, options.sweep_name, options.watch)
    return None


def main() -> None:
    """The console script; of several processes the first is the command, and the others do their part of its runs."""
    from harness import parallel

    if not parallel.leads():
        parallel.follow(run)
        return
    from harness.cli import start

    try:
        start(task)
    finally:
        parallel.dismiss()


if __name__ == "__main__":
    main()
