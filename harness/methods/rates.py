"""The default learning rate: a rule for each method, used when neither the sheet nor the trainer gives a number.

A rate that is right for one model is wrong for another, and the ranking of methods reverses with it. The rule starts
from two measured points of the method, at width 160 (the embedded model) and at width 576 (SmolLM2-135M), and moves
between and beyond them:

- Width: a power law between the points. Above 576 it falls as ``(576 / width) ** p`` with the exponent of the family
  that tinker-cookbook fitted (``hyperparam_utils.get_lr``): 0.781 for Llama, 0.0775 for Qwen; 0.43, their mean, for
  other families. Below 160 it is constant.
- Family: what Gemma 3 270M needs beyond that, see ``RateRule.gemma``.
- Batch: the square root of the rows per optimizer step, over 16 (same source).
- Steps: runs of fewer than 100 optimizer steps get up to 1.5 times as much. tinker-cookbook measured 15 times the rate
  of full fine-tuning for LoRA in such runs, and 10 times in longer ones. Only ``trainer.max_steps`` counts, because
  the number of rows is not known when a plan is made.
- The settings of the sheet: see ``RateRule.factor``.

``docs/learning_rates.md`` shows what was measured. An explicit rate always wins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.methods.context import SheetValues

TINY_WIDTH, SMALL_WIDTH = 160, 576
ROWS = 16  # rows per optimizer step to which the points refer
SHORT_STEPS, MOST_FOR_SHORT = 100, 1.5
EXPONENTS = {"llama": 0.781, "mistral": 0.781, "qwen": 0.0775}
OTHER_EXPONENT = 0.43


def _one(settings: SheetValues) -> float:
    return 1.0


@dataclass(frozen=True)
class RateContext:
    """What the rule knows of a run."""

    width: int  # hidden size of the base model
    family: str  # its model_type
    rows: int  # per optimizer step
    max_steps: int | None  # optimizer steps, if they are set


@dataclass(frozen=True)
class RateRule:
    """Learning rates of one method at 16 rows per step and 100 steps or more."""

    tiny: float  # at width 160
    small: float  # at width 576
    source: str  # of ``small``
    factor: Callable[[SheetValues], float] = _one  # what settings such as the initialization change
    gemma: float = 1.0  # times as much for models of this family

    def rate(self, run: RateContext, settings: SheetValues) -> float:
        """The learning rate, rounded to two significant digits."""
        at_width = self._at_width(run.width, run.family)
        short = 1.0
        if run.max_steps is not None and run.max_steps < SHORT_STEPS:
            short = min(MOST_FOR_SHORT, (SHORT_STEPS / run.max_steps) ** 0.25)
        of_family = self.gemma if run.family.lower().startswith("gemma") else 1.0
        exact = at_width * of_family * math.sqrt(run.rows / ROWS) * short * self.factor(settings)
        return float(f"{exact:.1e}")

    def _at_width(self, width: int, family: str) -> float:
        if width >= SMALL_WIDTH:
            return self.small * (SMALL_WIDTH / width) ** exponent(family)
        place = math.log(max(width, TINY_WIDTH) / TINY_WIDTH) / math.log(SMALL_WIDTH / TINY_WIDTH)
        return float(self.tiny * (self.small / self.tiny) ** place)


def exponent(family: str) -> float:
    """How fast the rate falls with the width above 576."""
    known = (value for name, value in EXPONENTS.items() if family.lower().startswith(name))
    return next(known, OTHER_EXPONENT)
