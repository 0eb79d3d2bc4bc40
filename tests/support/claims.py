"""Results of claims, made without runs."""

from harness.config.schema import Relation
from harness.plan.claims import Claim
from harness.report.claims import Arm, ClaimResult, Pair, Setting


def arm(name, rate=0.01):
    """An arm that was tuned over three rates, one of which has not finished."""
    return Arm(name, {0.003: 2.0, 0.01: 1.0, 0.03: None}, rate, None, (f"{name}-1", f"{name}-2"))


def result_of(differences, metric="loss", relation=Relation.better, margin=0.0, **more):
    """A result whose first arm has the larger score by these differences."""
    claim = Claim(("peft=lora",), ("peft=ia3",), relation, metric, margin, False)
    setting = Setting("tiny", "medicine", "test", "validation", (0,), "c0de")
    pairs = tuple(Pair(seed, 5.0 + each, 5.0, ("a", "b")) for seed, each in enumerate(differences, start=1))
    return ClaimResult(claim, "mine", setting, arm("lora"), arm("ia3"), pairs, runs=16, seconds=300.0, **more)


CLEAR = (1.0, 1.1, 0.9, 1.05, 0.95)
