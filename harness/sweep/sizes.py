"""Sizes of methods under a budget, for whoever composes cells. Nothing is imported until a budget is given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.config.schema import Budget
from harness.plan.read import Size
from harness.plan.spec import BudgetFit, Plan

if TYPE_CHECKING:
    from harness.estimate.budget import BudgetFitter


class Sizes:
    """What the cells of one command share: a size that was found once serves all seeds and rates."""

    def __init__(self) -> None:
        self._fitter: BudgetFitter | None = None

    def of(self, overrides: Sequence[str] = ()) -> Size:
        """Meets the budget of a cell, none of whose overrides may set the size itself."""

        def fit(plan: Plan, budget: Budget) -> BudgetFit:
            from harness.estimate.budget import BudgetFitter

            self._fitter = self._fitter or BudgetFitter()
            return self._fitter.fit(plan, budget, overrides)

        return fit
