"""Select, then report: choose settings on one split, then run the chosen ones with fresh seeds on another.

The rows that decide are not the rows that are reported, and the seeds that decided are not those that are reported:
the best of many settings looks better than it is on whatever it was chosen by.
"""

import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from harness.config.schema import SelectSettings
from harness.errors import raise_together
from harness.plan.spec import digest, effective_settings, plain
from harness.record.readings import validation_loss
from harness.report import alike
from harness.report.build import Winner
from harness.report.expression import near_fields
from harness.report.fields import flat, plan_fields
from harness.scoring.catalog import SCORES
from harness.sweep import execute, manifest
from harness.sweep.cells import Cell
from harness.sweep.outcome import Outcome
from harness.sweep.settled_threads import settle_threads
from harness.sweep.summary import conclude
from harness.sweep.worklist import Dispatch, Worklist

log = logging.getLogger(__name__)

SPLIT, SEED, SELECT = "scoring.split", "seed", "select.split"

Job = Sequence[str]  # overrides of one cell, as the launcher gets them
# The cells of these jobs, numbered from the second argument on, and what runs some of them.
Prepare = Callable[[Sequence[Job], int], tuple[list[Cell], Dispatch]]


def run_selection(jobs: Sequence[Job], cells: Sequence[Cell], prepare: Prepare) -> tuple[list[Cell], list[Outcome]]:
    """Run the grid on ``select.split``, and the best setting of each ``select.per`` on ``scoring.split``.

    Args:
        cells: of the jobs, as they were typed.

    Returns:
        The cells of both stages, and the outcome of each.

    Raises:
        ConfigFault: a setting of ``select`` does not fit the grid; nothing has run.
        RunFault: some run failed, or a group has no setting that finished; all others have run.
    """
    select = cells[0].options.select
    raise_together(list(_faults(cells)))
    final = cells[0].plan.scoring.split
    bases = [without(job, (SPLIT, SELECT)) for job in jobs]
    first, dispatch = prepare([[*base, f"{SELECT}=null", f"{SPLIT}={select.split}"] for base in bases], 0)
    runs_dir = first[0].options.runs_dir
    key = [[cell.name, cell.plan.fingerprint] for cell in first]
    folder = runs_dir / "sweeps" / digest([key, plain(select), final])
    manifest.keep_manifest(first, folder)
    settle_threads(folder)
    worklist = Worklist.of(first[0].options)
    with manifest.recorded_command(folder):
        outcomes, earlier = execute.run_cells(first, dispatch, folder, worklist)
        every = list(first)
        winners = [] if worklist.over else choose(first, select)
        if winners:
            seeds = fresh_seeds({cell.plan.seed for cell in first}, select.seeds)
            again = [
                [*without(bases[place], (SEED,)), f"{SELECT}=null", f"{SPLIT}={final}", f"{SEED}={seed}"]
                for place, _ in winners
                for seed in seeds
            ]
            second, dispatch = prepare(again, len(first))
            every += second
            parts = [second[start : start + len(seeds)] for start in range(0, len(second), len(seeds))]
            kept = [
                asdict(replace(winner, final=tuple(cell.plan.fingerprint for cell in part)))
                for (_, winner), part in zip(winners, parts, strict=True)
            ]
            manifest.keep_manifest(every, folder, selection={"winners": kept})
            more, before = execute.run_cells(second, dispatch, folder, worklist)
            outcomes, earlier = outcomes | more, earlier | before
    conclude(every, outcomes, earlier, folder, worklist)
    return every, [outcomes[cell.plan.fingerprint] for cell in every]


def choose(cells: Sequence[Cell], select: SelectSettings) -> list[tuple[int, Winner]]:
    """The best setting of each group, by the mean of ``select.score`` over its seeds: its first cell, and the winner.

    A setting counts if all of its runs have finished; the console names what does not, and groups without any.
    """
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, str] = {}
    for place, cell in enumerate(cells):
        plan = effective_settings(cell.plan.as_dict())
        values = _per(cell, select)
        group = digest([alike.comparable(plan), values])
        names[group] = ", ".join(str(value) for value in values.values())
        groups[group][digest({key: value for key, value in plan.items() if key != SEED})].append(place)
    sign = 1.0 if SCORES[select.score].lower_is_better else -1.0
    winners = []
    for group, settings in groups.items():
        means: dict[str, float] = {}
        for setting, places in settings.items():
            found = mean([score_of(cells[place], select.score) for place in places])
            if found is None and any(_was_pruned(cells[place]) for place in places):
                continue  # it has lost on the validation loss, which the console has said
            if found is None:
                log.warning("%s cannot be chosen: a run of it has no %s", cells[places[0]].name, select.score)
            else:
                means[setting] = found
        if not means:
            log.warning("no setting can be chosen for %s: none has finished", names[group])
            continue
        best = min(means, key=lambda setting: sign * means[setting])
        places = settings[best]
        winner = Winner(
            chosen=tuple(dict.fromkeys(cells[place].plan.fingerprint for place in places)),
            final=(),
            candidates=len(settings),
            score=select.score,
            split=str(select.split),
            per=names[group],
        )
        log.info(
            "chosen for %s: %s, by %s %.4g on %s, the best of %d settings",
            *(winner.per, cells[places[0]].name, select.score, means[best], select.split, winner.candidates),
        )
        winners.append((places[0], winner))
    return winners


def fresh_seeds(used: Collection[int], count: int) -> list[int]:
    """The smallest seeds that the choice has not used."""
    return list(itertools.islice((seed for seed in itertools.count() if seed not in used), count))


def _faults(cells: Sequence[Cell]) -> Iterator[str]:
    """What of ``select`` does not fit the grid."""
    splits = {cell.plan.scoring.split for cell in cells}
    if len(splits) > 1:
        yield f"{SPLIT}={','.join(sorted(splits))}: select.split decides on which split a run is scored; give one"
    wanted = _names(cells[0].options.select)
    known = {name for cell in cells for name in _fields(cell)}
    for name in wanted:
        if name not in known:
            close = near_fields(name, known)
            remedy = f"did you mean {' or '.join(close)}?" if close else "write select.per=method"
            yield f"select.per={name} is not a setting of this grid; {remedy}"
        elif name == SEED:
            yield "select.per=seed: the winners run with other seeds than those that chose them; leave seed out"


def _names(select: SelectSettings) -> list[str]:
    return [select.per] if isinstance(select.per, str) else list(select.per)


def _fields(cell: Cell) -> dict[str, Any]:
    plan = cell.plan.as_dict()
    return dict(flat(plan)) | plan_fields(plan)


def _per(cell: Cell, select: SelectSettings) -> dict[str, Any]:
    """The values that this cell's winner is chosen for; a setting that its method lacks is null."""
    fields = _fields(cell)
    return {name: fields.get(name) for name in _names(select)}


def _was_pruned(cell: Cell) -> bool:
    record = cell.read_record()
    return record is not None and record["status"] == "pruned"


def score_of(cell: Cell, name: str) -> float | None:
    record = cell.read_record()
    if record is None or record["status"] != "finished":
        return None
    value = validation_loss(record) if name == "validation_loss" else record["scores"]["after"].get(name)
    return value if value is not None and math.isfinite(value) else None


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def without(job: Job, keys: Collection[str]) -> list[str]:
    """The overrides of a job that set none of these keys."""
    return [text for text in job if text.lstrip("+").partition("=")[0] not in keys]
