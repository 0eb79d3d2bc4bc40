"""The learning rate of a plan: the one that is given, or the method's rule."""

import math
from dataclasses import dataclass

from harness.config.schema import Config
from harness.errors import ConfigFault
from harness.methods.rates import RateContext
from harness.methods.registry import rate_rule
from harness.models.architecture import read_architecture
from harness.plan.spec import rows_per_step


@dataclass(frozen=True)
class LearningRate:
    """The rate, and in words how it was chosen if nobody gave it."""

    value: float
    rule: str | None


def learning_rate(config: Config) -> LearningRate:
    """``trainer.learning_rate``, else the sheet's, else the rule (called auto).

    Raises:
        ConfigFault: there is no rule for this method.
        ModelFault: the model's width cannot be read.
    """
    method = config.peft.method
    sheet = getattr(config, method)
    given = config.trainer.learning_rate if config.trainer.learning_rate is not None else sheet.learning_rate
    if given is not None:
        return LearningRate(float(given), None)
    rule = rate_rule(method, vars(sheet))
    if rule is None:
        raise ConfigFault(f"{method}.learning_rate=null, and the method has no rule for it; set {method}.learning_rate")
    base = read_architecture(config.model)
    run = RateContext(base.width, base.family, rows_per_step(config.trainer), config.trainer.max_steps)
    value = rule.rate(run, vars(sheet))
    if not (value > 0 and math.isfinite(value)):
        raise ConfigFault(f"the rule of {method} gives a learning rate of {value} here; set trainer.learning_rate")
    steps = "" if run.max_steps is None else f", {run.max_steps} steps"
    words = f"auto for {method}: width {run.width}, {run.family}, {run.rows} rows per step{steps}; {rule.source}"
    return LearningRate(value, words)
