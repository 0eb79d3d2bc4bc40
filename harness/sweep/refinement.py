"""After a grid on few seeds: fresh seeds at the best learning rate of each setting, and at the rates beside it.

The grid finds where the optimum is; seeds are worth their time only there. Rates are compared by validation loss, as a
report does when it holds runs to a paper, so that scores on the test split have no part in the choice.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

from harness.config.schema import Prune, RefineSettings
from harness.errors import raise_together
from harness.plan.spec import digest, effective_settings, plain
from harness.runtime.terminal import counted
from harness.sweep import execute, manifest
from harness.sweep.cells import Cell
from harness.sweep.outcome import Outcome
from harness.sweep.selection import SEED, Job, Prepare, fresh_seeds, mean, score_of, without
from harness.sweep.settled_threads import settle_threads
from harness.sweep.summary import conclude
from harness.sweep.worklist import Dispatch, Worklist

log = logging.getLogger(__name__)

RATE = "learning_rate"
Setting = dict[float, list[int]]  # by learning rate, the places of the cells that have it


def run_refinement(
    jobs: Sequence[Job], cells: Sequence[Cell], dispatch: Dispatch, prepare: Prepare
) -> tuple[list[Cell], list[Outcome]]:
    """Run the grid, then ``refine.seeds`` fresh seeds around the best rate of each setting.

    Args:
        cells: of the jobs, and ``dispatch`` what runs them.

    Returns:
        The cells of both stages, and the outcome of each.

    Raises:
        ConfigFault: ``refine`` does not fit the other settings; nothing has run.
        RunFault: some run failed; all others have run.
    """
    options = cells[0].options
    raise_together(list(_faults(cells)))
    key = [[cell.name, cell.plan.fingerprint] for cell in cells]
    folder = options.runs_dir / "sweeps" / digest([key, plain(options.refine)])
    every = list(cells)
    manifest.keep_manifest(every, folder)
    settle_threads(folder)
    worklist = Worklist.of(options)
    with manifest.recorded_command(folder):
        outcomes, earlier = execute.run_cells(every, dispatch, folder, worklist)
        places = [] if worklist.over else places_around_best(cells, options.refine)
        if places:
            seeds = fresh_seeds({cell.plan.seed for cell in cells}, options.refine.seeds or 0)
            again = [[*without(jobs[place], (SEED,)), f"{SEED}={seed}"] for place in places for seed in seeds]
            more, dispatch = prepare(again, len(every))
            every += more
            manifest.keep_manifest(every, folder)
            ended, before = execute.run_cells(more, dispatch, folder, worklist)
            outcomes, earlier = outcomes | ended, earlier | before
    conclude(every, outcomes, earlier, folder, worklist)
    return every, [outcomes[cell.plan.fingerprint] for cell in every]


def places_around_best(cells: Sequence[Cell], refine: RefineSettings) -> list[int]:
    """One cell of each rate that gets fresh seeds, in the order of the grid.

    A rate counts if all of its runs have finished. The console names each setting's best rate, and those at an edge.
    """
    found = []
    for setting in _settings(cells):
        losses = {
            rate: mean([score_of(cells[each], "validation_loss") for each in own]) for rate, own in setting.items()
        }
        known = {rate: loss for rate, loss in losses.items() if loss is not None}
        first = cells[next(iter(setting.values()))[0]]
        if not known:
            log.warning("no rate can be chosen for %s: none has finished with a validation loss", first.name)
            continue
        rates = sorted(known)
        best = min(known, key=lambda rate: known[rate])
        place = rates.index(best)
        log.info("best rate for %s: %.4g, of %s", _but_rate(first), best, counted(len(rates), "rate"))
        if len(rates) > 1 and place in (0, len(rates) - 1):
            side = "below" if place == 0 else "above"
            log.warning("%.4g is at the edge of the rates for %s; add rates %s it", best, _but_rate(first), side)
        kept = rates[max(place - refine.rates, 0) : place + refine.rates + 1]
        found += [setting[rate][0] for rate in kept]
    return sorted(found)


def outlook(cells: Sequence[Cell]) -> str:
    """What follows the grid, in words, before it is known which rates are best."""
    refine, settings = cells[0].options.refine, _settings(cells)
    runs = sum(min(len(setting), 2 * refine.rates + 1) for setting in settings) * (refine.seeds or 0)
    return (
        f"then {counted(refine.seeds or 0, 'fresh seed')} around the best rate of {counted(len(settings), 'setting')}: "
        f"at most {counted(runs, 'more run')}"
    )


def _faults(cells: Sequence[Cell]) -> Iterator[str]:
    options = cells[0].options
    if options.prune is not Prune.none:
        yield f"sweep.prune={options.prune.value} ends runs whose losses refine.seeds compares; leave out one of them"
    if all(len(setting) == 1 for setting in _settings(cells)):
        yield (
            f"refine.seeds={options.refine.seeds} needs a grid over trainer.learning_rate, and each setting has one "
            "rate; give several, or sweep the seed instead"
        )


def _settings(cells: Sequence[Cell]) -> list[Setting]:
    """The cells of each setting, which differ only in rate and seed; cells that share a run count once."""
    found: dict[str, Setting] = defaultdict(lambda: defaultdict(list))
    seen = set()
    for place, cell in enumerate(cells):
        if cell.plan.fingerprint not in seen:
            seen.add(cell.plan.fingerprint)
            found[_key(cell)][cell.plan.learning_rate].append(place)
    return list(found.values())


def _key(cell: Cell) -> str:
    plan = effective_settings(cell.plan.as_dict())
    return digest({key: value for key, value in plan.items() if key not in (SEED, RATE)})


def _but_rate(cell: Cell) -> str:
    words = [word for word in cell.name.split() if not word.startswith((f"trainer.{RATE}=", f"{SEED}="))]
    return " ".join(words) or cell.plan.method
