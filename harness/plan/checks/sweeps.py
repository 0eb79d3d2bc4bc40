"""Faults of what concerns many runs: budgets of size, pruning, fresh seeds, selection."""

from collections.abc import Iterator

from harness.config.schema import Config, Prune, Stage, can_checkpoint
from harness.errors import above, at_least, brief, one_of
from harness.methods.knobs import FLOPS, STORED, TRAINABLE
from harness.methods.registry import METHODS
from harness.plan.values import texts
from harness.scoring import custom
from harness.scoring.catalog import SCORES


def has_budget(config: Config) -> bool:
    """Whether the size of the method follows from a budget."""
    return config.stage in (Stage.run, Stage.plan) and bool(_budgets(config))


def _budgets(config: Config) -> list[str]:
    return [key for key in (TRAINABLE, STORED, FLOPS) if getattr(config.budget, key) is not None]


def budget_faults(config: Config) -> Iterator[str]:
    """Of the size that a method is to have: one measure, for a method that has a setting for it."""
    given = _budgets(config)
    for key in given:
        yield from at_least(f"budget.{key}", getattr(config.budget, key), 1)
    yield from above("budget.tolerance", config.budget.tolerance, 0)
    if len(given) > 1:
        shown = " and ".join(f"budget.{key}" for key in given)
        yield f"{shown} are different measures of one size; set one of them"
    if given and has_budget(config) and not METHODS[config.peft.method].knobs:
        yield (
            f"peft={config.peft.method} has no setting that decides its size, which budget.{given[0]} could set; leave "
            "it out, or run it without a budget"
        )


def sweep_faults(config: Config) -> Iterator[str]:
    """Of limits of a sweep, and of races that its trainings cannot run."""
    sweep = config.sweep
    yield from at_least("sweep.max_failures", sweep.max_failures, 0)
    yield from above("sweep.max_hours", sweep.max_hours, 0)
    yield from at_least("sweep.pause_after", sweep.pause_after, 1)
    for name in ("keep", "first"):
        value = getattr(sweep.halving, name)
        if not 0 < value < 1:
            yield f"sweep.halving.{name}={value} must be above 0 and below 1"
    yield from at_least("sweep.halving.margin", sweep.halving.margin, 0)
    if sweep.prune is Prune.none:
        return
    if config.trainer.evaluations < 2:
        yield (
            f"sweep.prune=halving judges by the validation loss during training, and trainer.evaluations="
            f"{config.trainer.evaluations} measures none before the end; set trainer.evaluations=8"
        )
    strategy = config.trainer.parallel.strategy
    if not can_checkpoint(strategy):
        yield (
            f"sweep.prune=halving pauses runs at checkpoints, which trainer.parallel.strategy={strategy.value} cannot "
            "write; set sweep.prune=none"
        )


def refine_faults(config: Config) -> Iterator[str]:
    """Of fresh seeds around the best rate."""
    refine = config.refine
    yield from at_least("refine.rates", refine.rates, 0)
    if refine.seeds is None:
        return
    yield from at_least("refine.seeds", refine.seeds, 1)
    if config.select.split is not None:
        yield (
            f"refine.seeds={refine.seeds} and select.split={config.select.split} both add fresh seeds after a grid; "
            "leave out one of them"
        )
    if config.trainer.evaluations < 1:
        yield (
            f"refine.seeds={refine.seeds} compares rates by validation loss, which trainer.evaluations="
            f"{config.trainer.evaluations} does not measure; set trainer.evaluations=1"
        )


def select_faults(config: Config) -> Iterator[str]:
    """Of choosing winners on rows that do not judge them."""
    select = config.select
    if select.split is None:
        return
    yield from one_of("select.split", select.split, ("validation", "test"))
    if select.split == config.scoring.split:
        yield (
            f"select.split={select.split} is also scoring.split, so that the winners would be reported on the rows "
            "that they were chosen by; set select.split=validation scoring.split=test"
        )
    if select.per is None or not texts(select.per):
        yield f"select.per={brief(str(select.per))} is not a field or a list of fields; write select.per=method"
    if select.score not in SCORES:
        yield from one_of("select.score", select.score, tuple(SCORES))
    elif SCORES[select.score].is_metric and select.score not in custom.measured(config.scoring.metrics):
        yield (f"select.score={select.score} is not measured; add it to scoring.metrics, or set select.score=loss")
    yield from at_least("select.seeds", select.seeds, 1)
