"""Ratios of two contestants over rounds, and whether they did the same work."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lines import Line

from peer_bench.contestants import CONTESTANTS

TOLERANCE = 0.05  # of the drop of the loss that our training reaches
SMALLEST = 0.05  # nats; the tolerance of trainings that lower the loss by less than a nat
TOKENS_APART = 0.01  # of the tokens of the rows


@dataclass(frozen=True)
class Ratio:
    """A quotient in each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def text(self) -> str:
        """Median, and the lowest and highest of the rounds."""
        if len(self.rounds) == 1:
            return f"{self.median:.2f} (1 round)"
        return f"{self.median:.2f} ({min(self.rounds):.2f} to {max(self.rounds):.2f}, {len(self.rounds)} rounds)"


def ratio(above: Iterable[Line], below: Iterable[Line], value: str, other: str | None = None) -> Ratio | None:
    """``value`` of one over that of the other (over its ``other``), of the rounds that both have; None without any."""
    by_round = {line["round"]: line.get(other or value) for line in below}
    pairs = [(line.get(value), by_round.get(line["round"])) for line in above]
    found = tuple(one / other for one, other in pairs if one and other)
    return Ratio(found) if found else None


def inverse(found: Ratio | None) -> Ratio | None:
    return found and Ratio(tuple(1 / each for each in found.rounds))


def times(lines: Sequence[Line], value: str) -> Ratio | None:
    """``value`` in each round, of the lines that have it; None without any."""
    found = tuple(line[value] for line in lines if line.get(value))
    return Ratio(found) if found else None


@dataclass(frozen=True)
class Work:
    """What was measured of one workload, of its newest form: other steps are other work."""

    name: str
    runs: list[Line]
    losses: list[Line]
    failures: list[Line]

    @staticmethod
    def of(lines: Sequence[Line], name: str) -> "Work":
        def mine(kind: str) -> list[Line]:
            found = [line for line in lines if line["kind"] == kind and line.get("workload") == name]
            return [line for line in found if not line.get("sweep") and not line.get("scoring")]

        runs = mine("run")
        key = runs[-1]["key"] if runs else None
        newest = [[line for line in mine(kind) if key in (None, line["key"])] for kind in ("run", "loss", "failed")]
        return Work(name, *newest)

    @property
    def contestants(self) -> list[str]:
        measured = {line["contestant"] for line in (*self.runs, *self.failures)}
        return [name for name in CONTESTANTS if name in measured]

    def of_contestant(self, name: str) -> list[Line]:
        return [line for line in self.runs if line["contestant"] == name]

    def median(self, name: str, value: str) -> float | None:
        found = [line[value] for line in self.of_contestant(name) if line.get(value)]
        return statistics.median(found) if found else None

    def loss(self, name: str) -> Line | None:
        return next((line for line in self.losses if line["contestant"] == name), None)

    @property
    def tolerance(self) -> float | None:
        """How far a held-out loss may be from ours; None if ours was not measured."""
        own = self.loss("ours")
        return None if own is None else max(SMALLEST, TOLERANCE * (own["base"] - own["loss"]))

    def void(self, name: str) -> str | None:
        """Why a comparison with this contestant says nothing; None if it trained the same."""
        own, its, tolerance = self.loss("ours"), self.loss(name), self.tolerance
        if own is None or its is None or tolerance is None:
            return "no held-out loss to compare"
        for line in (*self.of_contestant("ours"), *self.of_contestant(name)):
            if line["tokens_seen"] and abs(line["tokens_seen"] / line["tokens"] - 1) > TOKENS_APART:
                who = CONTESTANTS[line["contestant"]].title
                return f"{who} read {line['tokens_seen']} tokens, the rows have {line['tokens']}"
        apart = abs(its["loss"] - own["loss"])
        if apart > tolerance:
            return f"held-out losses lie {apart:.3f} nats apart, {tolerance:.3f} are allowed"
        return None

    def fastest(self, chosen: Callable[[str], bool]) -> str | None:
        """The contestant with most tokens a second, of those whose work is the same."""
        speeds = {
            name: speed
            for name in self.contestants
            if chosen(name) and not self.void(name) and (speed := self.median(name, "tokens_per_s"))
        }
        return max(speeds, key=speeds.__getitem__, default=None)
