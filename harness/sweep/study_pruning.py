"""sweep.prune=halving in a study: Optuna's SuccessiveHalvingPruner, asked within each method.

The trials of a study come one after another, so that a trial is compared with those before it: it goes on if it
belongs to the best share of those that have reached the rung. The first trial of a method always goes on.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.config.schema import Halving
from harness.errors import ConfigFault, raise_together
from harness.sweep.halving import Entrant, Rule, Standing, Verdict

if TYPE_CHECKING:
    from optuna import Study


def check_rule(given: Halving) -> None:
    """Refuse a rule that Optuna's pruner does not know.

    Raises:
        ConfigFault: ``keep`` is not one half, one third, ..., or there is a margin.
    """
    faults = []
    if abs(1 / given.keep - round(1 / given.keep)) > 0.02:
        faults.append(f"sweep.halving.keep={given.keep}: Optuna keeps one half, one third, ...; set 0.5 or 0.333")
    if given.margin:
        faults.append(f"sweep.halving.margin={given.margin} is for grids, which are judged at once; set 0 for a study")
    raise_together(faults, ConfigFault)


def stand_in_study(earlier: Sequence[Entrant], entrants: Sequence[Entrant], rule: Rule) -> Standing:
    """Ask Optuna's pruner about each run at each rung that it has reached, in the order of the trials.

    Pure: the answers follow from the losses alone, so that a study that was cut off gets the same ones.

    Args:
        earlier: runs of earlier trials of the same group.
    """
    import optuna

    factor = round(1 / rule.keep)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
    study = optuna.create_study(direction="minimize", pruner=pruner)
    pruned, due, reaching = dict[str, Verdict](), dict[str, int | None](), 0
    for number, each in enumerate((*earlier, *entrants)):
        now = number >= len(earlier)
        rungs = rule.rungs(each.evaluations)
        trial = study.ask()
        for rung, evaluation in enumerate(rungs):
            if each.failed:
                break
            if len(each.losses) < evaluation:
                if now and not each.ended:
                    due[each.run], reaching = evaluation, max(reaching, rung)
                break
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Optuna: experimental arguments
                trial.report(each.losses[evaluation - 1], step=factor**rung)
                lost = trial.should_prune()
            if lost:
                if now:
                    pruned[each.configuration] = _verdict(study, factor, rung, each.losses[evaluation - 1])
                break
        else:
            if now and not each.ended:
                due[each.run], reaching = None, max(reaching, len(rungs))
    return Standing(pruned, due, reaching)


def _verdict(study: "Study", factor: int, rung: int, loss: float) -> Verdict:
    """The rank among all trials that had reached the rung."""
    values = [trial.intermediate_values.get(factor**rung) for trial in study.get_trials(deepcopy=False)]
    known = sorted(value for value in values if value is not None)
    kept = max(len(known) // factor, 1)
    return Verdict(rung, loss, known[kept - 1], 1 + sum(value < loss for value in known), len(known), kept)
