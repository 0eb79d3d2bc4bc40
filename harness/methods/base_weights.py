"""Methods that train weights of the base model, or a part of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import above, at_least, fraction
from harness.frozen import ConfigNode
from harness.methods.context import BuildContext, SheetValues, frequent_tokens, peft_kwargs
from harness.methods.fields import Targeted

if TYPE_CHECKING:
    from peft import PeftConfig


def full(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """Full fine-tuning: every weight of the base."""
    from harness.tuners.full import FullConfig

    return FullConfig(**settings)


def partial(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """The last layers, named modules, all norms."""
    from harness.tuners.partial import PartialConfig

    return PartialConfig(**settings)


def bitfit(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): biases only."""
    from harness.tuners.bitfit import BitFitConfig

    return BitFitConfig(**settings)


def diff_pruning(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """Diff pruning (Guo et al. 2021, arXiv:2012.07463): a difference to the base that an L0 penalty makes sparse.

    The last ``final_share`` of the steps trains the differences that magnitude has chosen (section 3.2).
    """
    from harness.tuners.diff_layer import DiffPruningConfig

    fields = {name: value for name, value in settings.items() if name != "final_share"}
    final = round(settings["final_share"] * situation.optimizer_steps)
    return DiffPruningConfig(**fields, project_step=situation.optimizer_steps - final if final else None)


def ln_tuning(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """LN tuning (Zhao et al. 2024, arXiv:2312.11420): the norms of the transformer blocks."""
    from peft import LNTuningConfig

    return LNTuningConfig(**peft_kwargs(settings, situation))


def trainable_tokens(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """Trainable tokens: chosen rows of the embedding, and of a head that is tied to it (PEFT's own; no paper)."""
    from peft import TrainableTokensConfig

    rest = peft_kwargs(settings, situation)
    number = rest.pop("frequent_tokens")
    if "token_indices" not in rest:
        counting = situation.batches is None
        rest["token_indices"] = list(range(number)) if counting else frequent_tokens(situation, number)
    return TrainableTokensConfig(**rest)


def shira(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """SHiRA (Bhardwaj et al. 2024, arXiv:2406.13175): a few weights of each matrix, scattered at random."""
    from peft import ShiraConfig

    return ShiraConfig(**peft_kwargs(settings, situation))


def check_partial(config: Any) -> list[str]:
    sheet = config.partial
    found = list(at_least("partial.last_layers", sheet.last_layers, 1))
    if sheet.last_layers is None and not sheet.modules and not sheet.norms:
        found.append("partial selects nothing to train; set partial.last_layers, partial.modules or partial.norms")
    return found


def check_diff_pruning(config: Any) -> list[str]:
    sheet = config.diff_pruning
    return [
        *above("diff_pruning.target_sparsity", sheet.target_sparsity, 0),
        *fraction("diff_pruning.target_sparsity", sheet.target_sparsity, closed=True),
        *fraction("diff_pruning.final_share", sheet.final_share),
        *at_least("diff_pruning.l0_weight", sheet.l0_weight, 0),
        *above("diff_pruning.gate_speed", sheet.gate_speed, 0),
        *above("diff_pruning.stretch_upper", sheet.stretch_upper, 1),
        *above("-diff_pruning.stretch_lower", -sheet.stretch_lower, 0),
    ]


# Methods that train weights of the base itself, or a part of them.


@dataclass
class Full(ConfigNode):
    """Full fine-tuning: every weight is trained."""

    learning_rate: float
    keep_base: bool


@dataclass
class Partial(ConfigNode):
    """Partial fine-tuning: the last N layers, named modules, all norms."""

    learning_rate: float
    last_layers: int | None
    modules: Any
    norms: bool
    modules_to_save: list[str] | None


@dataclass
class BitFit(ConfigNode):
    """BitFit: biases."""

    learning_rate: float
    modules: Any
    add_missing: bool
    modules_to_save: list[str] | None


@dataclass
class DiffPruning(ConfigNode):
    """Diff pruning: a sparse difference to the base weights."""

    learning_rate: float
    modules: Any
    target_sparsity: float
    final_share: float
    l0_weight: float
    structured: bool
    alpha_init: float
    gate_speed: float
    stretch_lower: float
    stretch_upper: float
    modules_to_save: list[str] | None


@dataclass
class LnTuning(ConfigNode):
    """LN tuning: ``LNTuningConfig``."""

    learning_rate: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


@dataclass
class TrainableTokens(ConfigNode):
    """Rows of the embedding: ``TrainableTokensConfig``."""

    learning_rate: float
    token_indices: list[int] | None
    frequent_tokens: int
    target_modules: Any


@dataclass
class Shira(Targeted):
    """SHiRA: ``ShiraConfig``."""

    r: int
    mask_type: str
    random_seed: int | None
