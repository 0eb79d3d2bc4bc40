"""``budget``: one cost for every method, met by the setting that decides the method's size.

Turns the knobs that stand beside the methods (``methods.knobs``), counts each position by formula or on the meta
device, and takes the nearest. The measure rises along a knob, so a search needs a few counts.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from harness.config.compose import sheet_values
from harness.config.schema import Budget
from harness.errors import ConfigFault, ModelFault, raise_together
from harness.estimate.plan_counter import PlanCounter
from harness.methods.knobs import FLOPS, STORED, TRAINABLE, Knob
from harness.methods.registry import METHODS
from harness.plan.spec import BudgetFit, Plan, digest

log = logging.getLogger(__name__)

Measure = Callable[[Any], float]  # of a knob's value; raises ModelFault if the model does not take it

SHORT = 64  # values that are few enough to skip those at the start that the model does not take


class BudgetFitter:
    """Meets budgets; plans that differ only in seed, rate or trainer are counted once."""

    def __init__(self) -> None:
        self._counter = PlanCounter()
        self._fits: dict[str, BudgetFit] = {}

    def fit(self, plan: Plan, budget: Budget, overrides: Sequence[str] = ()) -> BudgetFit:
        """The settings with which the plan comes nearest to the budget.

        Args:
            overrides: of the command, none of which may set what the budget decides.

        Raises:
            ConfigFault: the size is given beside the budget, or the method cannot come within the tolerance.
            ModelFault: the method does not fit the model at any size.
        """
        quantity, wanted = given_budget(budget)
        _refuse_given_size(plan, quantity, overrides)
        whole = plan.as_dict()
        parts = [whole[key] for key in ("model", "method", "settings")]
        if quantity == FLOPS:
            parts += [whole[key] for key in ("data", "trainer", "inputs")]
        key = digest([quantity, wanted, *parts, plan.trainer.max_steps])
        if key not in self._fits:
            self._fits[key] = self._nearest(plan, quantity, wanted)
            log.info("peft=%s: %s", plan.method, self._fits[key].words)
        fit = self._fits[key]
        if budget.tolerance is not None and abs(fit.off) > budget.tolerance:
            raise ConfigFault(
                f"peft={plan.method} cannot come closer to the budget: {fit.words}, beyond budget.tolerance="
                f"{budget.tolerance:g}; raise it, change budget.{quantity}, or leave out the method"
            )
        return fit

    def _nearest(self, plan: Plan, quantity: str, wanted: float) -> BudgetFit:
        """The best fit of the method's knobs; the first that reaches the budget from both sides is taken."""
        found: list[BudgetFit] = []
        faults: list[str] = []
        for knob in serving(plan, quantity):
            try:
                fit, enclosed = self._turn(plan, knob, quantity, wanted)
            except ModelFault as fault:
                faults.append(str(fault))
                continue
            found.append(fit)
            if enclosed:
                break
        if not found:
            raise ModelFault("\n".join(dict.fromkeys(faults)))
        return min(found, key=lambda fit: abs(fit.off))

    def _turn(self, plan: Plan, knob: Knob, quantity: str, wanted: float) -> tuple[BudgetFit, bool]:
        def measure(value: Any) -> float:
            return self.measured(at(plan, knob, value), quantity)

        value, reached, enclosed = nearest(values_of(plan, knob), measure, wanted)
        words = knob.setting(plan.settings, value)
        return BudgetFit(plan.method, quantity, wanted, reached, MappingProxyType(words), knob.key), enclosed

    def measured(self, plan: Plan, quantity: str) -> float:
        """What the plan costs, in the budget's quantity."""
        trainable = self._counter.count(plan).trainable  # raises if there is nothing to train
        if quantity == TRAINABLE:
            return trainable
        from harness.estimate import costs  # with torch, transformers and peft

        return costs.stored_bytes(plan) if quantity == STORED else costs.train_flops(plan)


def given_budget(budget: Budget) -> tuple[str, float]:
    """The quantity that is given, and how much."""
    [(quantity, wanted)] = [(name, each) for name in (TRAINABLE, STORED, FLOPS) if (each := getattr(budget, name))]
    return quantity, wanted


def serving(plan: Plan, quantity: str) -> list[Knob]:
    """The knobs that decide this quantity at these settings, without later ones whose own settings are given.

    Raises:
        ConfigFault: the method has none.
    """
    found = [knob for knob in METHODS[plan.method].knobs if knob.serves(plan.settings, quantity)]
    if not found:
        raise ConfigFault(
            f"peft={plan.method} has no setting that decides its size here, which budget.{quantity} could set; "
            "leave it out, or run it without a budget"
        )
    usual = sheet_values(plan.method)
    return found[:1] + [knob for knob in found[1:] if not knob.given(plan.settings, usual)]


def _refuse_given_size(plan: Plan, quantity: str, overrides: Sequence[str]) -> None:
    first = serving(plan, quantity)[0]
    keys = first.keys(plan.settings)
    typed = {text.lstrip("+~").partition("=")[0] for text in overrides}
    given = [key for key in keys if f"{plan.method}.{key}" in typed]
    given += [key for key in first.given(plan.settings, sheet_values(plan.method)) if key not in given]
    raise_together(
        [
            f"{plan.method}.{key} is given, and budget.{quantity} sets the size of peft={plan.method} itself; leave "
            "out one of them"
            for key in given
        ]
    )


def values_of(plan: Plan, knob: Knob) -> Sequence[Any]:
    """The knob's values, from the smallest adapter to the largest."""
    if knob.values is not None:
        from harness.adapters.attach import build_context
        from harness.models import skeleton

        context = build_context(plan, skeleton.load_config(plan.model), str(plan.model.path), 0)
        return knob.values(plan.settings, context)
    from harness.estimate import costs

    sizes = costs.block_sizes_of(plan)
    return sizes[::-1] if knob.falls else sizes


def at(plan: Plan, knob: Knob, value: Any) -> Plan:
    """The plan with the knob at this value."""
    return replace(plan, settings=MappingProxyType({**plan.settings, **knob.setting(plan.settings, value)}))


def nearest(values: Sequence[Any], measure: Measure, wanted: float) -> tuple[Any, float, bool]:
    """The value whose measure, which rises along ``values``, is nearest to ``wanted``.

    A value that the model does not take counts as too large.

    Returns:
        The value, its measure, and whether ``wanted`` lies between the measures of two values.

    Raises:
        ModelFault: the model takes not even the first value; of a short list, none.
    """
    known: dict[int, float] = {}

    def measured(index: int) -> float:
        if index not in known:
            try:
                known[index] = measure(values[index])
            except ModelFault:
                known[index] = float("inf")
        return known[index]

    low = _first_taken(values, measure, known)
    high = len(values)  # the first index that is known to be too large, or the end
    former, tries = low, 0
    while known[low] < wanted and high - low > 1:
        tries += 1
        guess = _guess(low, high, former, known, wanted, middle=tries % 8 == 0 or known.get(high) == float("inf"))
        if measured(guess) <= wanted:
            former, low = low, guess
        else:
            high = guess
    above = known.get(high, float("inf"))
    best = high if above - wanted < abs(wanted - known[low]) else low
    return values[best], known[best], known[low] == wanted or (known[low] < wanted and above < float("inf"))


def _first_taken(values: Sequence[Any], measure: Measure, known: dict[int, float]) -> int:
    """The first index whose value the model takes; its measure is then known."""
    for index in range(len(values) if len(values) <= SHORT else 1):
        try:
            known[index] = measure(values[index])
        except ModelFault as fault:
            last = fault
        else:
            return index
    raise last


def _guess(low: int, high: int, former: int, known: dict[int, float], wanted: float, middle: bool) -> int:
    """Where ``wanted`` lies between two indices: by a straight line, or halfway if that is not known to help."""
    if middle:
        return (low + high) // 2
    other = high if high in known else former
    if other == low:
        return low + 1
    slope = (known[other] - known[low]) / (other - low)
    if slope <= 0:
        return (low + high) // 2
    return min(max(low + int((wanted - known[low]) / slope), low + 1), high - 1)
