"""Methods that train weights of the base model, or a part of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.frozen import text
from harness.methods.context import BuildContext, SheetValues, frequent_tokens, peft_kwargs
from harness.methods.fields import (
    Sheet,
    Targeted,
    choice,
    count,
    module_names,
    positive,
    share,
)
from harness.methods.hooks import Hooks, adapter_of
from harness.methods.knobs import Knob, layers, tokens, up_to_width
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import FULL, PLAIN, WHOLE, Traits
from harness.tuners.checks import diff_pruning_faults, partial_faults

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch.optim import Optimizer


@dataclass(kw_only=True)
class Full(Sheet):
    """Full fine-tuning: every weight is trained."""

    keep_base: bool


def build_full(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Full fine-tuning: every weight of the base."""
    from harness.tuners.full import FullConfig

    return FullConfig(**settings)


@dataclass(kw_only=True)
class Partial(Sheet):
    """Partial fine-tuning: the last N layers, named modules, all norms."""

    last_layers: int | None = count()
    modules: Any = module_names()
    norms: bool
    modules_to_save: list[str] | None = text()


def build_partial(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """The last layers, named modules, all norms."""
    from harness.tuners.partial import PartialConfig

    return PartialConfig(**settings)


@dataclass(kw_only=True)
class BitFit(Sheet):
    """BitFit: biases."""

    modules: Any = module_names()
    add_missing: bool
    modules_to_save: list[str] | None = text()


def build_bitfit(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): biases only."""
    from harness.tuners.bitfit import BitFitConfig

    return BitFitConfig(**settings)


@dataclass(kw_only=True)
class DiffPruning(Sheet):
    """Diff pruning: a sparse difference to the base weights."""

    modules: Any = module_names()
    target_sparsity: float
    final_share: float = share()
    l0_weight: float
    structured: bool
    alpha_init: float
    gate_learning_rate: float = positive()
    stretch_lower: float
    stretch_upper: float
    modules_to_save: list[str] | None = text()


def build_diff_pruning(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Diff pruning (Guo et al. 2021, arXiv:2012.07463): a difference to the base that an L0 penalty makes sparse.

    The last ``final_share`` of the steps trains the differences that magnitude has chosen (section 3.2).
    """
    from harness.tuners.diff_layer import DiffPruningConfig

    fields = {name: value for name, value in settings.items() if name not in ("final_share", "gate_learning_rate")}
    final = round(settings["final_share"] * context.optimizer_steps)
    return DiffPruningConfig(**fields, project_step=context.optimizer_steps - final if final else None)


@dataclass(kw_only=True)
class LnTuning(Sheet):
    """LN tuning: ``LNTuningConfig``."""

    target_modules: Any = module_names()
    exclude_modules: Any = module_names()
    modules_to_save: list[str] | None = text()


def build_ln_tuning(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """LN tuning (Zhao et al. 2024, arXiv:2312.11420): the norms of the transformer blocks."""
    from peft import LNTuningConfig

    return LNTuningConfig(**peft_kwargs(settings, context))


@dataclass(kw_only=True)
class TrainableTokens(Sheet):
    """Rows of the embedding: ``TrainableTokensConfig``."""

    token_indices: list[int] | None
    frequent_tokens: int = count()
    target_modules: Any = module_names()


def build_trainable_tokens(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Trainable tokens: chosen rows of the embedding, and of a head that is tied to it (PEFT's own; no paper)."""
    from peft import TrainableTokensConfig

    rest = peft_kwargs(settings, context)
    number = rest.pop("frequent_tokens")
    if "token_indices" not in rest:
        counting = context.batches is None
        rest["token_indices"] = list(range(number)) if counting else frequent_tokens(context, number)
    return TrainableTokensConfig(**rest)


@dataclass(kw_only=True)
class Shira(Targeted):
    """SHiRA: ``ShiraConfig``."""

    r: int = count()
    mask_type: str = choice("random")
    random_seed: int | None


def build_shira(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """SHiRA (Bhardwaj et al. 2024, arXiv:2406.13175): a few weights of each matrix, scattered at random."""
    from peft import ShiraConfig

    return ShiraConfig(**peft_kwargs(settings, context))


class DiffPruningHooks(Hooks):
    """Adds an L0 penalty to the loss, and fixes the places of the differences before or after the last step."""

    penalties = ("l0_weight",)

    def optimizer(
        self, model: "PeftModel", settings: SheetValues, learning_rate: float, weight_decay: float
    ) -> "Optimizer | None":
        """None; but the gates move at a rate of their own, as in the published code, whatever that of the rest."""
        _, config, _ = adapter_of(model)
        config.gate_speed = settings["gate_learning_rate"] / learning_rate
        return None

    def after_step(self, model: "PeftModel", optimizer: "Optimizer", step: int) -> None:
        """Fix the places of the differences, and train on with those alone (section 3.2)."""
        name, config, tuner = adapter_of(model)
        if config.project_step == step:
            tuner.project(name, trainable=True)
            _regroup(optimizer, model)

    def first_keepable_step(self, model: "PeftModel") -> int:
        _, config, _ = adapter_of(model)
        return int(config.project_step or 0)

    def finish(self, model: "PeftModel") -> dict[str, Any]:
        """Keep the largest differences, unless training has done so."""
        name, config, tuner = adapter_of(model)
        return dict((tuner.sparsity_report(name) if config.projected else tuner.project(name)).as_dict())

    def remaining_parameters(self, model: "PeftModel") -> int | None:
        name, config, tuner = adapter_of(model)
        return int(tuner.sparsity_report(name).nonzeros) if config.projected else None

    def state(self, model: "PeftModel") -> dict[str, Any]:
        name, config, tuner = adapter_of(model)
        return {"places": tuner.places(name)} if config.projected else {}

    def load_state(self, model: "PeftModel", state: Mapping[str, Any]) -> None:
        name, _, tuner = adapter_of(model)
        if "places" in state:
            tuner.fix_places(name, state["places"])


def _regroup(optimizer: Any, model: Any) -> None:
    """Give the optimizer what trains now, in the groups that Trainer would make; drop the moments of the rest."""
    from harness.tuners.select import decayed_names

    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    decayed = set(decayed_names(model))
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for group, decays in zip(inner.param_groups, (True, False), strict=True):
        group["params"] = [parameter for name, parameter in named if (name in decayed) is decays]
    for former in set(inner.state) - {parameter for _, parameter in named}:
        del inner.state[former]


METHODS = {
    "full": Method(
        Full,
        build_full,
        FULL,
        rate=RateRule(
            0.001,
            0.00018,
            "measured on E2E and GSM8K; tinker-cookbook's formula gives 1.3e-4 at this width",
            gemma=0.25,
        ),
    ),
    "partial": Method(
        Partial,
        build_partial,
        WHOLE,
        partial_faults,
        rate=RateRule(0.004, 0.001, "measured on E2E, GSM8K and SNIPS", gemma=0.3),
        knobs=(Knob("last_layers", layers),),
    ),
    "bitfit": Method(
        BitFit,
        build_bitfit,
        PLAIN,
        rate=RateRule(
            0.3, 0.015, "measured on E2E and SNIPS; LoRA (arXiv:2106.09685) table 12: 1.6e-3 at 175B", gemma=0.28
        ),
    ),
    "diff_pruning": Method(
        DiffPruning,
        build_diff_pruning,
        replace(WHOLE, why_one_process="fixes during training what it trains, each process for itself"),
        diff_pruning_faults,
        hooks=DiffPruningHooks(),
        rate=RateRule(0.03, 0.03, "measured on E2E and SNIPS", gemma=0.2),
    ),
    "ln_tuning": Method(LnTuning, build_ln_tuning, PLAIN, rate=RateRule(0.1, 0.005, "T-Few 3e-4; interpolated")),
    "trainable_tokens": Method(
        TrainableTokens,
        build_trainable_tokens,
        Traits(tied_embeddings=True, multi_adapter=False),
        rate=RateRule(0.01, 0.01, "interpolated"),
        knobs=(Knob("frequent_tokens", tokens, beside=("token_indices",)),),
    ),
    "shira": Method(
        Shira,
        build_shira,
        Traits(conv1d=False),
        rate=RateRule(0.02, 0.001, "PEFT method_comparison 3e-4 at 3B; interpolated"),
        knobs=(Knob("r", up_to_width),),
    ),
}
