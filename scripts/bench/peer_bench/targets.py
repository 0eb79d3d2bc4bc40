"""The figures to reach, and what was measured of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lines import Line

from peer_bench.contestants import CONTESTANTS
from peer_bench.measure import OWN_SWEEPS, SCORED
from peer_bench.ratios import Ratio, Work, inverse, ratio, times
from peer_bench.workloads import WORKLOADS

SWEEP_LIMITS = {"tiny": 0.25, "smollm2_e2e": 0.5}
COMMAND_LIMITS = {"plan": 3.0, "help": 0.6, "misspelt": 0.6}
COMMAND_TITLES = {"plan": "`stage=plan` on six cells", "help": "`--help`", "misspelt": "a misspelled key"}


@dataclass(frozen=True)
class Target:
    """One figure to reach, and what was measured."""

    text: str
    limit: float
    at_least: bool
    found: Ratio | None
    cpu: Ratio | None = None  # the same of CPU time
    unit: str = ""
    void: str | None = None
    against: str = ""

    @property
    def aim(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"

    @property
    def shown(self) -> str:
        """Median and spread, by the clock."""
        return self.found.text if self.found else "not measured"

    @property
    def measured(self) -> str:
        if self.found is None:
            return self.shown
        cpu = f"by CPU time {self.cpu.median:.2f}" if self.cpu else ""
        return "; ".join(filter(None, [self.found.text, cpu, self.against]))

    @property
    def verdict(self) -> str:
        """By the median, with a word if rounds, or CPU time, say otherwise."""
        if self.found is None:
            return "not measured"
        if self.void:
            return f"void: {self.void}"
        met = bool(self.met)
        notes = []
        if any(self._reached(each) != met for each in self.found.rounds):
            notes.append("not in every round" if met else "in some rounds")
        if self.cpu and self._reached(self.cpu.median) != met:
            notes.append(f"{'not ' if met else ''}met by CPU time")
        return ("**met**" if met else "**not met**") + (f" ({'; '.join(notes)})" if notes else "")

    @property
    def met(self) -> bool | None:
        """By the median; None: not measured, or void."""
        return None if self.found is None or self.void else self._reached(self.found.median)

    def _reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def targets(lines: Sequence[Line], works: dict[str, Work]) -> Iterator[Target]:
    """Every target, measured or not."""
    for name, title in (("tiny", "embedded model"), ("smollm2_e2e", "short rows"), ("smollm2_gsm8k", "mixed lengths")):
        yield speed_target(works[name], f"Speed of the bare loop on the same batches, {title}", 0.97, "bare")
    yield speed_target(works["smollm2_e2e"], "Speed of the lesson's recipe, short rows", 8, "lesson")
    mixed = works["smollm2_gsm8k"]
    default = mixed.fastest(lambda name: CONTESTANTS[name].peer and not CONTESTANTS[name].tuned)
    yield speed_target(mixed, "Speed of the best peer at its defaults, mixed lengths", 1.5, default)
    tuned = any(CONTESTANTS[name].tuned for name in mixed.contestants)
    best = mixed.fastest(lambda name: CONTESTANTS[name].peer) if tuned else None
    yield speed_target(mixed, "Speed of the best tuned peer, mixed lengths", 1.15, best)
    wide = works["gemma3_270m"]
    memory = ratio(wide.of_contestant("ours"), wide.of_contestant("trl"), "peak_bytes")
    yield Target("Peak memory of TRL, a vocabulary of 262,144", 0.6, False, memory, void=wide.void("trl"))
    for name, limit in SWEEP_LIMITS.items():
        yield sweep_target(lines, works[name], limit)
    for name in SWEEP_LIMITS:
        yield from scoring_targets(lines, name)
    for name, limit in COMMAND_LIMITS.items():
        found = command_lines(lines, name)
        yield Target(COMMAND_TITLES[name], limit, False, times(found, "seconds"), times(found, "cpu_s"), " s")
    found = works["tiny"].of_contestant("ours")
    first, cpu = times(found, "first_step_s"), times(found, "first_step_cpu_s")
    yield Target("First optimizer step of the embedded model after the command", 5, False, first, cpu, " s")


def speed_target(work: Work, text: str, limit: float, other: str | None) -> Target:
    """Tokens a second of ours against those of another."""
    if other is None:
        return Target(text, limit, True, None)
    mine, its = work.of_contestant("ours"), work.of_contestant(other)
    against = CONTESTANTS[other].title if CONTESTANTS[other].peer else ""
    found = ratio(mine, its, "tokens_per_s")
    cpu = inverse(ratio(mine, its, "training_cpu_s"))
    return Target(text, limit, True, found, cpu, void=work.void(other), against=against)


def sweep_lines(lines: Sequence[Line], work: str) -> dict[str, list[Line]]:
    """By contestant, of the newest form of the workload."""
    found = [line for line in lines if line["kind"] == "sweep" and line["workload"] == work]
    newest = [line for line in found if line["key"] == found[-1]["key"]]
    return {name: [line for line in newest if line["contestant"] == name] for name in (*OWN_SWEEPS, *CONTESTANTS)}


def sweep_target(lines: Sequence[Line], work: Work, limit: float) -> Target:
    """The faster of our two launchers against six launches of a peer, which must have trained the same in one."""
    found = sweep_lines(lines, work.name)
    text = f"Six cells against six launches of the fastest peer, {WORKLOADS[work.name].title}"
    peers = [name for name in found if found[name] and name not in OWN_SWEEPS]
    own = {name: times(found[name], "seconds") for name in OWN_SWEEPS if found.get(name)}
    if not peers or not own:
        return Target(text, limit, False, None)
    peer = peers[-1]
    best = min(own, key=lambda name: own[name].median)  # type: ignore[union-attr]
    wall, cpu = (ratio(found[best], found[peer], value) for value in ("seconds", "cpu_s"))
    against = f"`hydra/launcher={OWN_SWEEPS[best]}`, {CONTESTANTS[peer].title}"
    return Target(text, limit, False, wall, cpu, void=work.void(peer), against=against)


def lines_of(lines: Sequence[Line], kind: str, work: str) -> list[Line]:
    return [line for line in lines if line["kind"] == kind and line["workload"] == work]


def scoring_targets(lines: Sequence[Line], work: str) -> Iterator[Target]:
    title = WORKLOADS[work].title
    for text, limit, kind, above, below in (
        (f"Answers to {SCORED} prompts against one by one", 3, "scoring", "single", "batched"),
        ("Answers with LoRA at the base model's speed", 0.95, "merged", "base", "lora"),
    ):
        found = lines_of(lines, kind, work)
        wall, cpu = (ratio(found, found, f"{above}_{clock}", f"{below}_{clock}") for clock in ("s", "cpu_s"))
        yield Target(f"{text}, {title}", limit, True, wall, cpu)


def command_lines(lines: Sequence[Line], name: str) -> list[Line]:
    return [line for line in lines if line["kind"] == "command" and line["name"] == name]
