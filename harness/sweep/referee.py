"""The referee: tune both arms of a claim alike, then run pairs with fresh seeds until the claim is decided.

It resumes like a sweep: every run has its record, the same command reuses those that have finished, and the verdict is
computed anew from the scores of all pairs in the order of their seeds.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.config.schema import ClaimSettings, Reuse, SelectSettings
from harness.errors import ConfigFault, RunFault, raise_together
from harness.plan.claims import Claim, read_claim
from harness.plan.spec import digest, effective_settings, plain
from harness.record import locks, provenance
from harness.record.files import set_aside, write_json
from harness.report import alike, claims
from harness.report.claims import Arm, ClaimResult, Pair, Setting
from harness.report.statistics.sequential import FEWEST_PAIRS, Verdict
from harness.report.texts import short_path
from harness.runtime.terminal import counted
from harness.scoring.catalog import SCORES
from harness.sweep import execute, manifest
from harness.sweep.cells import Cell
from harness.sweep.outcome import Outcome
from harness.sweep.selection import SEED, SPLIT, Job, Prepare, choose, fresh_seeds, score_of
from harness.sweep.settled_threads import settle_threads
from harness.sweep.summary import show_results
from harness.sweep.worklist import Worklist

log = logging.getLogger(__name__)

RATE = "trainer.learning_rate"
EQUAL = 0.05  # share by which trainable parameters may differ "at equal budget"


class Referee:
    """One command's work on a claim.

    Args:
        shared: overrides of both arms, without those of the claim itself.
        prepare: as of a sweep.
    """

    def __init__(self, settings: ClaimSettings, shared: Job, prepare: Prepare) -> None:
        self.claim: Claim = read_claim(settings)
        self.settings = settings
        self._prepare = prepare
        self._jobs = [_merged(shared, words) for words in (self.claim.better, self.claim.than)]
        self.arms, _ = prepare(self._jobs, 0)
        self.options = self.arms[0].options
        self.name = settings.name or f"{self.claim.slug}-{self._key[:6]}"
        self.folder = self.options.runs_dir / "claims" / self.name
        first = self.arms[0].plan
        self.seeds = tuple(range(first.seed, first.seed + settings.seeds))
        self.cells: list[Cell] = []  # of all runs so far, in the order in which they were asked for
        self.outcomes: dict[str, Outcome] = {}
        self.earlier: frozenset[str] = frozenset()

    def judge(self) -> ClaimResult:
        """The result, which is also in ``claim.json``.

        Raises:
            ConfigFault: these arms do not make a claim that can be decided; nothing has run.
            RunFault: the command's time is over, a run of a pair failed, no rate of an arm has finished, or another
                process judges this claim.
        """
        counts = self._check()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = locks.take_lock(self.folder)
        if lock is None:
            owner = locks.describe(locks.holder(self.folder) or {})
            raise RunFault(f"{owner} is judging this claim in {self.folder}; wait for it, or set claim.name")
        with lock:
            self._keep_earlier()
            settle_threads(self.folder)
            worklist = Worklist.of(self.options)
            try:
                with manifest.recorded_command(self.folder):
                    result = self._keep(self._tune(worklist, counts))
                    result = self._run_pairs(result, worklist)
            finally:
                if self.cells:
                    show_results(self.cells, self.earlier, self.folder, worklist.not_started, worklist.made_by)
        if result.stopped is None:
            raise RunFault(f"the claim is open: {_left(result)}; run the same command again to resume")
        return result

    def _check(self) -> list[int | None]:
        """Refuse arms that cannot be compared; the trainable parameters of each if they must be equal."""
        better, than = (effective_settings(cell.plan.as_dict()) for cell in self.arms)
        faults = []
        if better == than:
            faults.append(
                f"claim: both arms make the same plan ({self.arms[0].name}); an override in which they differ has no "
                "effect on this method"
            )
        elif _but_rate(better) == _but_rate(than) and len(self.settings.rates) > 1:
            faults.append(
                f"claim.rates={list(self.settings.rates)} would tune away the only difference between the arms, their "
                "learning rate; set claim.rates=[1.0]"
            )
        if parts := _different(alike.comparable(better), alike.comparable(than)):
            faults.append(
                f"claim: the arms differ in {', '.join(parts)}, so that their scores are not of the same rows, model "
                "and protocol; leave that out of the arms"
            )
        faults += self._budget_faults()
        raise_together(faults)
        self._refuse_other_claim()
        return self._trainable() if self.claim.equal_budget else [None, None]

    def _budget_faults(self) -> Iterable[str]:
        rates = len(self.settings.rates)
        runs, tuning = self.settings.budget.runs, 2 * rates * self.settings.seeds if rates > 1 else 0
        least = tuning + 2 * FEWEST_PAIRS
        if runs is not None and runs < least:
            yield (
                f"claim.budget.runs={runs} allows no verdict: {tuning} runs of tuning and {FEWEST_PAIRS} pairs are "
                f"{least} runs; raise it, or tune fewer claim.rates"
            )

    def _refuse_other_claim(self) -> None:
        """The folder of a claim holds that claim alone."""
        kept = self._read()
        if kept is not None and kept["key"] != self._key:
            raise ConfigFault(
                f"claim.name={self.name} is the folder of another claim ({kept['claim']['text']}), or of the same one "
                f"on other settings; choose another name, or remove {short_path(self.folder)}"
            )

    def _keep_earlier(self) -> None:
        """Set a result aside whose runs this command makes anew, so that it is not lost meanwhile."""
        kept, code = self._read(), provenance.code_version()
        if kept is None or not kept["pairs"]:
            return
        if self.options.rerun or (kept["setting"]["code"] != code and self.options.reuse is not Reuse.any):
            why = "rerun=true" if self.options.rerun else "the sources have changed since"
            log.info("%s: kept as %s", why, short_path(set_aside(self.folder / claims.NAME, "earlier")))

    def _read(self) -> dict[str, Any] | None:
        """The ``claim.json`` of an earlier command."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / claims.NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or damaged; it is written anew from the records
            return None
        return kept

    @property
    def _key(self) -> str:
        """Hash of what is claimed and of how it is judged; what it may cost is not part of it."""
        settings = {name: value for name, value in plain(self.settings).items() if name not in ("budget", "name")}
        return digest([self.claim.text, settings, [cell.plan.fingerprint for cell in self.arms]])

    def _trainable(self) -> list[int | None]:
        """Trainable parameters of each arm.

        Raises:
            ConfigFault: they differ by more than "at equal budget" allows, and no ``budget`` has set both sizes.
        """
        from harness.estimate.plan_counter import PlanCounter

        counter = PlanCounter()
        counts = [counter.count(cell.plan).trainable for cell in self.arms]
        sized = all(cell.options.budget is not None for cell in self.arms)
        if not sized and max(counts) > (1 + EQUAL) * min(counts):
            shown = " and ".join(f"{count:,} ({cell.name})" for count, cell in zip(counts, self.arms, strict=True))
            raise ConfigFault(
                f"the claim is at equal budget, but the arms train {shown} parameters, which differ by more than "
                f"{100 * EQUAL:g} %; add budget.trainable_params={min(counts)} to the command, or size an arm yourself"
            )
        return list(counts)

    def _tune(self, worklist: Worklist, counts: Sequence[int | None]) -> ClaimResult:
        """Choose each arm's rate on ``claim.split``: as many runs for one as for the other."""
        split = self.settings.split
        rates = [[_rounded(cell.plan.learning_rate * each) for each in self.settings.rates] for cell in self.arms]
        jobs = [
            [
                *_without(job, (SEED, SPLIT, RATE)),
                f"{SPLIT}={self.settings.split}",
                f"{RATE}={rate!r}",
                f"{SEED}={seed}",
            ]
            for job, tried in zip(self._jobs, rates, strict=True)
            for rate in tried
            for seed in self.seeds
        ]
        single = len(self.settings.rates) == 1
        cells = [] if single else self._run(jobs, worklist)
        select = SelectSettings(split=split, per="method", score=self.claim.tuned_by, seeds=1)
        size, arms = len(self.settings.rates) * len(self.seeds), []
        for place, (cell, tried) in enumerate(zip(self.arms, rates, strict=True)):
            own = cells[place * size : (place + 1) * size]
            rate = tried[0] if single else self._chosen(own, cell, select, worklist)
            means = {each: None if single else _mean(own, each, self.claim.tuned_by) for each in tried}
            prints = tuple(dict.fromkeys(each.plan.fingerprint for each in own))
            budget = None if cell.options.budget is None else cell.options.budget.words
            arms.append(Arm(_name(cell, self.claim, place), means, rate, counts[place], prints, budget))
        better, than = arms
        return ClaimResult(self.claim, self.name, self._setting(), better, than)

    def _chosen(self, cells: Sequence[Cell], arm: Cell, select: SelectSettings, worklist: Worklist) -> float:
        if worklist.over and any(score_of(cell, select.score) is None for cell in cells):
            raise RunFault("the tuning is not complete; run the same command again to resume")
        tied = _tied_best(cells, select)
        if len({cell.plan.learning_rate for cell in tied}) > 1:
            log.info("several rates are best by %s; the loss decides among them", select.score)
            cells, select = tied, replace(select, score="loss")
        winners = choose(cells, select)
        if not winners:
            raise RunFault(f"no learning rate of {arm.name} has finished on {select.split}; the lines above say why")
        [(place, _)] = winners
        return cells[place].plan.learning_rate

    def _run_pairs(self, result: ClaimResult, worklist: Worklist) -> ClaimResult:
        """Run pair after pair until the claim is decided or its budget is spent."""
        while (stopped := self._why_stop(result)) is None:
            if worklist.over:
                return result
            [seed] = fresh_seeds({*self.seeds, *(pair.seed for pair in result.pairs)}, 1)
            arms = (result.better, result.than)
            jobs = [
                [*_without(job, (SEED, RATE)), f"{RATE}={arm.rate!r}", f"{SEED}={seed}"]
                for job, arm in zip(self._jobs, arms, strict=True)
            ]
            pair = self._run(jobs, worklist)
            scores = [score_of(cell, self.claim.metric) for cell in pair]
            if None in scores:
                self._explain_gap(pair, scores, seed, worklist)
                return result
            first, second = (score for score in scores if score is not None)
            prints = (pair[0].plan.fingerprint, pair[1].plan.fingerprint)
            result = self._keep(result.with_pair(Pair(seed, first, second, prints)))
            log.info("%s", claims.progress(result))
        return self._keep(replace(result, stopped=stopped))

    def _explain_gap(self, pair: Sequence[Cell], scores: Sequence[float | None], seed: int, worklist: Worklist) -> None:
        """Say why a pair has no result. A pair is never skipped: leaving out seeds that fail would favor an arm."""
        for cell, score in zip(pair, scores, strict=True):
            outcome = self.outcomes.get(cell.plan.fingerprint)
            if score is None and outcome is not None and outcome.failed:
                raise RunFault(
                    f"the pair of seed {seed} cannot be judged: {cell.name} failed ({outcome.message}); pairs are not "
                    "skipped, because that would favor an arm; fix the cause and run the same command again"
                )
            if score is None and outcome is not None and outcome.record is not None:
                raise RunFault(
                    f"the pair of seed {seed} cannot be judged: {cell.name} has no finite {self.claim.metric}; claim "
                    "something on another score"
                )

    def _why_stop(self, result: ClaimResult) -> str | None:
        """Why no further pair is run; only pairs, runs and seconds count, so that the verdict's error holds."""
        budget = self.settings.budget
        if result.verdict is not Verdict.undecided:
            return result.verdict.value
        if budget.runs is not None and result.runs + 2 > budget.runs:
            return f"claim.budget.runs={budget.runs} is spent"
        if budget.seconds is not None and result.seconds >= budget.seconds:
            return f"claim.budget.seconds={budget.seconds:g} is spent"
        return None

    def _run(self, jobs: Sequence[Job], worklist: Worklist) -> list[Cell]:
        """Run these jobs as cells of this claim's sweep."""
        cells, dispatch = self._prepare(jobs, len(self.cells))
        self.cells += cells
        manifest.keep_manifest(self.cells, self.folder)
        outcomes, earlier = execute.run_cells(cells, dispatch, self.folder, worklist)
        self.outcomes |= outcomes
        self.earlier |= earlier
        return cells

    def _keep(self, result: ClaimResult) -> ClaimResult:
        """Write ``claim.json``; the result with what it has cost so far."""
        records = {cell.plan.fingerprint: cell.read_record() for cell in self.cells}
        seconds = sum(_seconds(record) for record in records.values() if record is not None)
        result = replace(result, runs=len(records), seconds=seconds)
        write_json(self.folder / claims.NAME, {**result.to_plain(), "key": self._key})
        return result

    def _setting(self) -> Setting:
        plan = self.arms[0].plan
        return Setting(
            model=plan.model.name,
            data=plan.data.name,
            split=plan.scoring.split,
            tuning_split=self.settings.split,
            tuning_seeds=self.seeds,
            code=provenance.code_version(),
        )


def _merged(shared: Job, words: Sequence[str]) -> list[str]:
    """The shared overrides with those of an arm, which replace shared ones of the same key."""
    from harness.config.free_text import quoted

    own = {word.lstrip("+").partition("=")[0] for word in words}
    return [*_without(shared, own), *(quoted(word, sweeps=False) for word in words)]


def _without(job: Job, keys: Iterable[str]) -> list[str]:
    left = set(keys)
    return [text for text in job if text.lstrip("+").partition("=")[0] not in left]


def _name(cell: Cell, claim: Claim, place: int) -> str:
    """The arm in words: its method, and the overrides that it has for itself."""
    own = (claim.better, claim.than)[place]
    words = [word for word in own if not word.startswith("peft=")]
    return " ".join([cell.plan.method, *words])


def _but_rate(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plan.items() if key != "learning_rate"}


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in one if one[name] != other.get(name)]


def _tied_best(cells: Sequence[Cell], select: SelectSettings) -> list[Cell]:
    """The cells of the best rate; of several rates if a score such as 0 % of the answers does not tell them apart."""
    means = {cell.plan.learning_rate: _mean(cells, cell.plan.learning_rate, select.score) for cell in cells}
    known = [mean for mean in means.values() if mean is not None]
    if not known:
        return []
    best = min(known) if SCORES[select.score].lower_is_better else max(known)
    return [cell for cell in cells if means[cell.plan.learning_rate] == best]


def _mean(cells: Sequence[Cell], rate: float, score: str) -> float | None:
    values = [score_of(cell, score) for cell in cells if cell.plan.learning_rate == rate]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _rounded(rate: float) -> float:
    """The rate as it can be typed again."""
    return float(f"{rate:.6g}")


def _seconds(record: Mapping[str, Any]) -> float:
    return sum(float(value) for value in record["times_s"].values() if value is not None)


def _left(result: ClaimResult) -> str:
    more = result.expected_pairs
    done = counted(len(result.pairs), "pair")
    return f"{done} judged" + ("" if more is None else f", about {more} more expected")
