"""What a study searches and how: the space in Hydra's overrides, the sampler, the objective in a record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from harness.config.names import known_settings
from harness.errors import ConfigFault, raise_together
from harness.plan.spec import Plan
from harness.record.readings import validation_loss
from harness.record.redact import redactor
from harness.scoring.catalog import SCORES, Direction

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution

VALIDATION_LOSS, SCORE = "validation_loss", "scores.after."


SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "cmaes": "CmaEsSampler"}


@dataclass(frozen=True)
class StudySettings:
    """The settings in ``conf/hydra/sweeper/optuna.yaml``."""

    objective: str
    direction: str | None
    n_trials: int
    parallel: int
    sampler: str
    seed: int

    def check(self) -> None:
        """Raise ConfigFault with all settings that make no sense."""
        faults = [
            f"hydra.sweeper.{key}={value!r}: give a whole number, {least} or more"
            for key, value, least in (("n_trials", self.n_trials, 1), ("parallel", self.parallel, 1))
            if not isinstance(value, int) or value < least
        ]
        objectives = [VALIDATION_LOSS, *(SCORE + name for name in SCORES if name != VALIDATION_LOSS)]
        if self.objective not in objectives:
            faults.append(f"hydra.sweeper.objective={self.objective} is unknown; choose one of {', '.join(objectives)}")
        if self.direction not in (None, "minimize", "maximize"):
            faults.append(f"hydra.sweeper.direction={self.direction}: give minimize, maximize or null")
        if self.sampler not in SAMPLERS:
            faults.append(f"hydra.sweeper.sampler={self.sampler}: give one of {', '.join(SAMPLERS)}")
        raise_together(faults)

    @property
    def towards(self) -> Direction:
        """The direction of the study: that of the objective in the catalog of scores, unless the settings name one."""
        if self.direction is None:
            return SCORES[self.objective.removeprefix(SCORE)].direction
        return "minimize" if self.direction == "minimize" else "maximize"


def space(overrides: "Sequence[Override]") -> "tuple[dict[str, BaseDistribution], list[str]]":
    """The searched keys with their distributions, and the overrides that all trials share.

    Raises:
        ConfigFault: no key is searched.
    """
    searched = {each.get_key_element(): _distribution(each) for each in overrides if each.is_sweep_override()}
    if not searched:
        raise ConfigFault(
            "hydra/sweeper=optuna has nothing to search; give at least one key several values: lora.r=4,8,16, "
            "'trainer.learning_rate=tag(log,interval(1e-4,1e-2))' or peft=glob(*)"
        )
    return searched, [str(each.input_line) for each in overrides if not each.is_sweep_override()]


def without_secrets(
    searched: "Mapping[str, BaseDistribution]",
) -> "tuple[dict[str, BaseDistribution], dict[str, dict[str, str]]]":
    """The space as the journal may keep it, and by key the text behind each choice that holds a secret."""
    from optuna.distributions import CategoricalDistribution

    redact, shown, plain = redactor(), dict[str, Any](), dict[str, dict[str, str]]()
    for key, distribution in searched.items():
        shown[key] = distribution
        if isinstance(distribution, CategoricalDistribution):
            texts = [str(choice) for choice in distribution.choices]
            # Two secrets may redact to the same text; their places tell them apart.
            names = [text if redact(text) == text else f"{redact(text)}#{place}" for place, text in enumerate(texts)]
            plain[key] = {name: text for name, text in zip(names, texts, strict=True) if name != text}
            shown[key] = CategoricalDistribution(names) if plain[key] else distribution
    return shown, plain


def _distribution(override: "Override") -> "BaseDistribution":
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high, scale = float(value.start), float(value.end), "log" in value.tags  # type: ignore[arg-type]
        try:
            # Hydra reads interval(2,32) as 2.0 to 32.0; the type of the setting decides.
            if _is_whole(override.get_key_element()) or isinstance(value.start, int):
                return IntDistribution(math.ceil(low), math.floor(high), log=scale)
            return FloatDistribution(low, high, log=scale)
        except ValueError as error:
            raise ConfigFault(f"{override.input_line}: {error}") from error
    choices = list(override.sweep_string_iterator())
    if isinstance(value, RangeSweep) and not value.shuffle and all(_is_int(choice) for choice in choices):
        numbers = [int(choice) for choice in choices]
        if len(numbers) > 1 and numbers[0] < numbers[-1]:
            return IntDistribution(numbers[0], numbers[-1], step=numbers[1] - numbers[0])
    return CategoricalDistribution(list(dict.fromkeys(choices)))


def _is_whole(key: str) -> bool:
    """Whether the setting takes only whole numbers."""
    kind = known_settings().get(key.lstrip("+"))
    return int in (get_args(kind) or (kind,)) and float not in get_args(kind)


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def sampler(settings: StudySettings, seed: int) -> Any:
    """Optuna's sampler of that name.

    Raises:
        ConfigFault: it needs a package that is not installed.
    """
    import optuna

    try:
        return getattr(optuna.samplers, SAMPLERS[settings.sampler])(seed=seed)
    except ImportError as error:
        raise ConfigFault(
            f"hydra.sweeper.sampler={settings.sampler} needs a package that is not installed ({error}); install it or "
            "set tpe"
        ) from error


class ObjectiveFault(ConfigFault):
    """The study cannot choose by this objective, whatever the trial."""


def check_objective(objective: str, plan: Plan) -> None:
    """Refuse an objective that this plan will not measure, before it is trained.

    Raises:
        ObjectiveFault: no validation loss is measured, or the score is of the test split, which is not for choosing.
    """
    if objective == VALIDATION_LOSS:
        if not plan.trainer.evaluations:
            raise ObjectiveFault(f"hydra.sweeper.objective={objective} needs trainer.evaluations of 1 or more")
    elif plan.scoring.split != "validation":
        raise ObjectiveFault(
            f"hydra.sweeper.objective={objective} would choose by the {plan.scoring.split} split; set "
            "scoring.split=validation, and score the best trial on the test split afterwards"
        )


def value_of(objective: str, record: Mapping[str, Any]) -> float:
    """The objective in a record.

    Raises:
        ConfigFault: the record does not have it.
    """
    if objective == VALIDATION_LOSS:
        value = validation_loss(record)
    else:
        value = record["scores"]["after"].get(objective.removeprefix(SCORE))
    if value is None:
        names = ", ".join(SCORE + name for name in sorted(record["scores"]["after"]))
        raise ConfigFault(f"hydra.sweeper.objective={objective} is not in the records; they have {names}")
    return float(value)
