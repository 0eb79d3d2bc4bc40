#!/usr/bin/env python
"""Replay sweep.prune=halving on complete sweeps: what it would have saved, and how often it would have erred.

    python scripts/bench/halving.py runs/a runs/b --resamples 400
    python scripts/bench/halving.py runs/a --rules 0.5,0.125,0 0.5,0.125,0.02 0.333,0.111,0 --out halving.json

Each folder is a ``runs_dir`` with sweeps whose runs have all finished, best with ``trainer.evaluations`` of 8 or more:
their records hold the validation loss over training. A sub-sweep is a random subset of at least four configurations of
one method of one sweep, with all their seeds. The rule of the harness (``harness.sweep.halving``) races them over the
recorded losses.

- *Steps saved*: optimizer steps of the runs that were not done, of all steps of the sub-sweep.
- *Wrong winner*: the configuration that wins the race ends with a higher validation loss than the best one of the
  sub-sweep, by more than noise: the half width of the 95 % interval of the difference of two means of equal plans, by
  the spread over seeds in that sweep (or ``--noise``, a share of the best loss, where there is one seed).
- *Upper bound*: sub-sweeps of one sweep are not independent. One-sided 95 % Clopper-Pearson bound at the effective
  number of sub-sweeps, which follows from the correlation within sweeps; without a single wrong winner that correlation
  cannot be told, and the bound is between that of so many independent sub-sweeps and that of so many sweeps.
"""

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from harness.plan.spec import digest, effective_settings
from harness.record import store
from harness.record.readings import validation_loss
from harness.report import alike
from harness.report.fields import method_name
from harness.sweep.halving import Entrant, Rule, stand
from harness.sweep.sweep_report import read_sweep

SMALLEST = 4  # configurations of a sub-sweep
RULES = ("0.5,0.125,0", "0.5,0.25,0", "0.5,0.125,0.02", "0.333,0.111,0", "0.25,0.125,0")
SAVED, WRONG = 0.60, 0.02  # what is aimed at


@dataclass(frozen=True)
class Curve:
    """A finished run: its validation losses, the steps at which they were measured, and the loss it ended with."""

    run: str
    configuration: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    final: float


@dataclass(frozen=True)
class Race:
    """The runs of one method in one sweep."""

    sweep: str
    method: str
    curves: tuple[Curve, ...]

    @property
    def configurations(self) -> list[str]:
        return list(dict.fromkeys(curve.configuration for curve in self.curves))


@dataclass(frozen=True)
class Replay:
    """What the rule did to one sub-sweep."""

    sweep: str
    saved: float  # share of the steps
    excess: float  # final loss of the winner above the best one's
    wrong: bool  # beyond noise


@dataclass(frozen=True)
class Result:
    """A rule over all sub-sweeps."""

    keep: float
    first: float
    margin: float
    sub_sweeps: int
    sweeps: int
    saved: float
    saved_sd: float  # between sweeps
    wrong: int
    rate: float
    upper: float  # of the rate, clustered by sweep
    upper_if_independent: float
    worst_excess: float


def main() -> None:
    arguments = parsed()
    races = [race for folder in arguments.runs_dirs for race in races_in(Path(folder))]
    if not races:
        sys.exit(
            f"{', '.join(arguments.runs_dirs)}: no complete sweep with {SMALLEST} or more configurations of one method "
            "and at least 2 validation losses per run"
        )
    names = {race.sweep for race in races}
    print(f"{len(names)} complete sweeps, {sum(len(race.curves) for race in races)} runs, {len(races)} races")
    results = [evaluate(races, rule, arguments.resamples, arguments.seed, arguments.noise) for rule in rules(arguments)]
    print("\n".join(table(results)))
    print("\n".join(verdicts(results)))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs_dirs", nargs="+")
    parser.add_argument("--resamples", type=int, default=400, help="sub-sweeps for each rule")
    parser.add_argument("--rules", nargs="+", default=RULES, metavar="KEEP,FIRST,MARGIN", help="of sweep.halving")
    parser.add_argument("--noise", type=float, default=0.02, help="share of the best loss, for sweeps of one seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="file for the results as JSON")
    return parser.parse_args()


def rules(arguments: argparse.Namespace) -> list[Rule]:
    return [Rule(*map(float, text.split(","))) for text in arguments.rules]


def races_in(runs_dir: Path) -> Iterator[Race]:
    """The races of every sweep in this folder whose runs have all finished; the others are named."""
    for manifest in sorted(runs_dir.glob("sweeps/*/sweep.json")):
        sweep = read_sweep(manifest.parent)
        records = [store.read_record(runs_dir, fingerprint, curve=False) for fingerprint in sweep.cells]
        finished = [record for record in records if record is not None and record["status"] == "finished"]
        if len(finished) < len(records):
            print(f"left out: {manifest.parent}, in which {len(records) - len(finished)} runs have not finished")
            continue
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for record in finished:
            groups[digest([alike.comparable(effective(record)), method_name(record)])].append(record)
        for group in groups.values():
            curves = tuple(curve for record in group if (curve := curve_of(record)) is not None)
            race = Race(str(manifest.parent), method_name(group[0]), curves)
            if len(race.configurations) >= SMALLEST and len(curves) == len(group):
                yield race


def effective(record: Mapping[str, Any]) -> dict[str, Any]:
    return effective_settings(dict(record["plan"]))


def curve_of(record: Mapping[str, Any]) -> Curve | None:
    """None if the run measured too few validation losses to be judged before its end."""
    points, final = record["training"].get("validation") or [], validation_loss(record)
    if len(points) < 2 or final is None:
        return None
    plan = effective(record)
    return Curve(
        run=record["fingerprint"],
        configuration=digest({key: value for key, value in plan.items() if key != "seed"}),
        steps=tuple(int(point["step"]) for point in points),
        losses=tuple(float(point["loss"]) for point in points),
        final=final,
    )


def evaluate(races: Sequence[Race], rule: Rule, resamples: int, seed: int, noise: float) -> Result:
    """The rule over so many random sub-sweeps, the same ones for every rule."""
    generator = random.Random(seed)
    by_sweep: dict[str, list[Race]] = defaultdict(list)
    for race in races:
        by_sweep[race.sweep].append(race)
    floors = {race: floor(race, noise) for race in races}
    order = sorted(by_sweep)
    replays = []
    for number in range(resamples):  # each sweep as often as the others
        race = generator.choice(by_sweep[order[number % len(order)]])
        names = race.configurations
        chosen = set(generator.sample(names, generator.randint(SMALLEST, len(names))))
        replays.append(
            replay(race, [curve for curve in race.curves if curve.configuration in chosen], rule, floors[race])
        )
    return summarized(replays, rule)


def replay(race: Race, curves: Sequence[Curve], rule: Rule, noise: float) -> Replay:
    """Race these runs by the rule."""
    reached = {curve.run: 0 for curve in curves}
    while True:
        standing = stand([entrant(curve, reached[curve.run]) for curve in curves], rule)
        if not standing.due:
            break
        ends = {curve.run: len(curve.losses) for curve in curves}
        reached |= {run: ends[run] if goal is None else min(goal, ends[run]) for run, goal in standing.due.items()}
    done = sum(curve.steps[reached[curve.run] - 1] for curve in curves)
    finals = means(curves)
    going = {name: loss for name, loss in finals.items() if name not in standing.pruned}
    excess = min(going.values()) - min(finals.values())
    return Replay(race.sweep, 1 - done / sum(curve.steps[-1] for curve in curves), excess, excess > noise)


def entrant(curve: Curve, reached: int) -> Entrant:
    whole = len(curve.losses)
    return Entrant(curve.run, curve.configuration, whole, curve.losses[:reached], ended=reached == whole)


def means(curves: Sequence[Curve]) -> dict[str, float]:
    """By configuration, the mean over its seeds of the loss that its runs ended with."""
    finals: dict[str, list[float]] = defaultdict(list)
    for curve in curves:
        finals[curve.configuration].append(curve.final)
    return {name: sum(values) / len(values) for name, values in finals.items()}


def floor(race: Race, noise: float) -> float:
    """How far apart two configurations of equal quality end, in 95 of 100 cases."""
    finals: dict[str, list[float]] = defaultdict(list)
    for curve in race.curves:
        finals[curve.configuration].append(curve.final)
    squares, freedom = 0.0, 0
    for values in finals.values():
        mean = sum(values) / len(values)
        squares += sum((value - mean) ** 2 for value in values)
        freedom += len(values) - 1
    if not freedom:
        return noise * min(means(race.curves).values())
    seeds = len(race.curves) / len(finals)
    return float(stats.t.ppf(0.975, freedom) * math.sqrt(2 * squares / freedom / seeds))


def summarized(replays: Sequence[Replay], rule: Rule) -> Result:
    by_sweep: dict[str, list[Replay]] = defaultdict(list)
    for each in replays:
        by_sweep[each.sweep].append(each)
    wrong = sum(each.wrong for each in replays)
    saved = [sum(each.saved for each in group) / len(group) for group in by_sweep.values()]
    mean = sum(saved) / len(saved)
    sd = math.sqrt(sum((value - mean) ** 2 for value in saved) / (len(saved) - 1)) if len(saved) > 1 else 0.0
    return Result(
        keep=rule.keep,
        first=rule.first,
        margin=rule.margin,
        sub_sweeps=len(replays),
        sweeps=len(by_sweep),
        saved=sum(each.saved for each in replays) / len(replays),
        saved_sd=sd,
        wrong=wrong,
        rate=wrong / len(replays),
        upper=clustered_bound([[each.wrong for each in group] for group in by_sweep.values()]),
        upper_if_independent=bound(wrong, len(replays)),
        worst_excess=max(each.excess for each in replays),
    )


def clustered_bound(clusters: Sequence[Sequence[bool]]) -> float:
    """One-sided 95 % upper bound of a rate that is measured in clusters."""
    total, wrong = sum(map(len, clusters)), sum(map(sum, clusters))
    if wrong == 0:
        return bound(0, len(clusters))  # nothing tells the correlation: as if each cluster were one observation
    size = total / len(clusters)
    effect = max(1 + (size - 1) * correlation(clusters), 1.0)
    return bound(wrong / effect, total / effect)


def correlation(clusters: Sequence[Sequence[bool]]) -> float:
    """Intraclass correlation by analysis of variance, 0 to 1; of one cluster, 1."""
    total, groups = sum(map(len, clusters)), len(clusters)
    if groups < 2 or total == groups:
        return 1.0
    rate = sum(map(sum, clusters)) / total
    between = sum(len(each) * (sum(each) / len(each) - rate) ** 2 for each in clusters) / (groups - 1)
    within = sum(sum(each) * (1 - sum(each) / len(each)) for each in clusters) / (total - groups)
    usual = (total - sum(len(each) ** 2 for each in clusters) / total) / (groups - 1)
    if between + (usual - 1) * within == 0:
        return 0.0
    return min(max((between - within) / (between + (usual - 1) * within), 0.0), 1.0)


def bound(wrong: float, of: float) -> float:
    """Clopper and Pearson's, for counts that need not be whole."""
    return 1.0 if wrong >= of else float(stats.beta.ppf(0.95, wrong + 1, of - wrong))


def table(results: Sequence[Result]) -> Iterator[str]:
    """The results as Markdown."""
    columns = ("keep", "first", "margin", "sub-sweeps", "sweeps", "steps saved", "wrong winners", "rate")
    columns += ("upper bound", "if independent", "worst excess")
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --: |' * len(columns)}"
    for each in results:
        yield (
            f"| {each.keep:g} | {each.first:g} | {each.margin:g} | {each.sub_sweeps} | {each.sweeps} | "
            f"{each.saved:.1%} ± {each.saved_sd:.1%} | {each.wrong} | {each.rate:.2%} | {each.upper:.2%} | "
            f"{each.upper_if_independent:.2%} | {each.worst_excess:.4f} |"
        )


def verdicts(results: Sequence[Result]) -> Iterator[str]:
    """Which rules reach what is aimed at."""
    for each in results:
        saved = "at least" if each.saved >= SAVED else "less than"
        wrong = "below" if each.upper < WRONG else "not below"
        yield (
            f"keep={each.keep:g} first={each.first:g} margin={each.margin:g}: {saved} {SAVED:.0%} of the steps saved; "
            f"upper bound of wrong winners {wrong} {WRONG:.0%}"
        )


if __name__ == "__main__":
    main()
