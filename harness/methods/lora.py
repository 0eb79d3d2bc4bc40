"""LoRA and AdaLoRA."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault, one_of
from harness.frozen import text
from harness.methods.context import BuildContext, SheetValues, peft_kwargs, refuse_wider_than
from harness.methods.fields import (
    Placed,
    Sheet,
    between,
    checked,
    choice,
    count,
    minimum,
    module_names,
    pattern,
    positive,
    share,
)
from harness.methods.hooks import Hooks, adapter_of
from harness.methods.knobs import Knob, up_to_width
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import DROPS, Traits

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch.optim import Optimizer

LORA_INITS = (True, False, "gaussian", "pissa", "olora", "orthogonal", "mica", "eva", "corda", "lora_ga", "loftq")
ALLOCATOR_STATE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what AdaLoRA's rank allocator remembers, by parameter

# Why initializations that replace base weights need them unquantized.
OLORA = "starts from base weights that are then rounded again, so the saved adapter would not match its base"
LOFTQ = "quantizes the base itself and needs one that is not quantized yet"


def _lora_init(key: str, value: Any, sheet: Any) -> Iterator[str]:
    niter = value.removeprefix("pissa_niter_") if isinstance(value, str) else ""
    if not (niter != value and niter.isdigit()):
        yield from one_of(key, value, LORA_INITS)


@dataclass(kw_only=True)
class Lora(Placed):
    """LoRA: ``LoraConfig``, its initializations and its optimizers."""

    r: int = count()
    lora_alpha: float = positive()
    lora_dropout: float = share()
    bias: str = choice("none", "all", "lora_only")
    use_rslora: bool
    use_dora: bool
    init_lora_weights: Any = checked(_lora_init, choices=LORA_INITS)
    eva_config: dict[str, Any]
    corda_config: dict[str, Any]
    lora_ga_config: dict[str, Any]
    loftq_config: dict[str, Any]
    lora_fa: bool
    loraplus_lr_ratio: float | None = minimum(1)
    rank_pattern: dict[str, int] = pattern()
    alpha_pattern: dict[str, float] = pattern()


def check_lora(sheet: Lora) -> Iterator[str]:
    if sheet.lora_fa and sheet.loraplus_lr_ratio is not None:
        yield "lora.lora_fa=true and lora.loraplus_lr_ratio each set the optimizer; unset one of them"
    if sheet.lora_fa and sheet.use_dora:
        yield "lora.lora_fa=true takes pairs of A and B, and lora.use_dora=true adds a third; unset one of them"
    for name in ("eva", "corda", "lora_ga", "loftq"):
        if getattr(sheet, f"{name}_config") and sheet.init_lora_weights != name:
            yield f"lora.{name}_config has no effect without lora.init_lora_weights={name}; unset it or set that"


def build_lora(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """LoRA (Hu et al. 2021, arXiv:2106.09685, sec. 4.1): W + (alpha / r) B A.

    Settings of it: rsLoRA (arXiv:2312.03732), DoRA (arXiv:2402.09353); the initializations PiSSA
    (arXiv:2404.02948), OLoRA (arXiv:2406.01775), EVA (arXiv:2410.07170), CorDA (arXiv:2406.05223), LoRA-GA
    (arXiv:2407.05000), LoftQ (arXiv:2310.08659) and MiCA; the optimizers LoRA-FA (arXiv:2308.03303) and LoRA+
    (arXiv:2402.12354).
    """
    from peft import LoraConfig

    rest = peft_kwargs(settings, context)
    rest.pop("lora_fa", None)  # these two choose the optimizer
    rest.pop("loraplus_lr_ratio", None)
    refuse_wider_than(rest["r"], "lora.r", context)
    if rest.get("init_lora_weights") == "loftq":
        import torch

        require_loftq(gpu=torch.cuda.is_available())
    return LoraConfig(**_with_init_config(rest))


@dataclass(kw_only=True)
class AdaLora(Sheet):
    """AdaLoRA: ``AdaLoraConfig``. ``total_step`` is the run's own."""

    init_r: int = count()
    target_r: int = count()
    warmup_share: float = share()  # of the optimizer steps before pruning starts (tinit)
    final_share: float = share()  # of the optimizer steps after pruning ends (tfinal)
    deltaT: int | None = count()
    beta1: float = between(0, 1)
    beta2: float = between(0, 1)
    orth_reg_weight: float = positive()
    lora_alpha: float = positive()
    lora_dropout: float = share()
    target_modules: Any = module_names()
    exclude_modules: Any = module_names()
    modules_to_save: list[str] | None = text()


def check_adalora(sheet: AdaLora) -> Iterator[str]:
    if sheet.target_r > sheet.init_r:
        yield f"adalora.target_r={sheet.target_r} exceeds adalora.init_r={sheet.init_r}; pruning only lowers ranks"
    if max(sheet.warmup_share, sheet.final_share) < 1 <= sheet.warmup_share + sheet.final_share:
        yield "adalora.warmup_share + adalora.final_share leave no step to prune in; lower them below 1"


# Steps between two prunings by the steps of the run, as in AdaLoRA's table 8 and its published scripts.
PRUNING_INTERVALS = ((4_000, 1), (10_000, 10), (float("inf"), 100))


def build_adalora(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): an SVD-shaped update whose ranks are pruned in training.

    Raises:
        ModelFault: the run has too few optimizer steps for warm-up, pruning and the final phase.
    """
    from peft import AdaLoraConfig

    steps = context.optimizer_steps
    rest = peft_kwargs(settings, context)
    tinit, tfinal = int(rest.pop("warmup_share") * steps), int(rest.pop("final_share") * steps)
    if not max(tinit, 1) < steps - tfinal:  # pruning needs the importance that one step before it gave
        raise ModelFault(
            f"peft=adalora has no step left to prune in: {steps} optimizer steps, of which {tinit} warm up and "
            f"{tfinal} follow the pruning; train longer (trainer.max_steps, trainer.epochs) or lower "
            "adalora.warmup_share or adalora.final_share"
        )
    refuse_wider_than(rest["init_r"], "adalora.init_r", context)
    rest.setdefault("deltaT", next(interval for below, interval in PRUNING_INTERVALS if steps < below))
    return AdaLoraConfig(**{"total_step": steps, "tinit": tinit, "tfinal": tfinal} | rest)


def _with_init_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the sub-configuration of the chosen initialization only, as the object that PEFT takes."""
    from peft.tuners.lora.config import CordaConfig, EvaConfig, LoftQConfig, LoraGAConfig

    kinds = {"eva": EvaConfig, "corda": CordaConfig, "lora_ga": LoraGAConfig, "loftq": LoftQConfig}
    for name, kind in kinds.items():
        values = settings.pop(f"{name}_config", None) or {}
        if settings.get("init_lora_weights") == name:
            settings[f"{name}_config"] = kind(**values)
    return settings


def require_loftq(gpu: bool) -> None:
    """Refuse LoftQ if what it quantizes with is missing. Raises ``ModelFault``."""
    from importlib.util import find_spec

    lacks = [] if find_spec("bitsandbytes") else ["bitsandbytes is not installed (pip install 'peft-harness[quant]')"]
    lacks += [] if find_spec("scipy") else ["scipy, which PEFT asks for, is not installed (pip install scipy)"]
    lacks += [] if gpu else ["this machine has no GPU"]
    if lacks:
        raise ModelFault(
            f"lora.init_lora_weights=loftq quantizes on a GPU with bitsandbytes; {', and '.join(lacks)}; choose "
            "another initialization, such as pissa"
        )


def lora_traits(traits: Traits, settings: SheetValues) -> Traits:
    """LoRA's traits at other settings than its sheet's.

    An initialization that writes into base weights leaves no room for a second adapter: it would shift the first.
    """
    if settings.get("lora_fa"):
        traits = replace(traits, why_unsharded="with lora.lora_fa=true multiplies whole weights in its optimizer")
    init = settings.get("init_lora_weights", True)
    if not isinstance(init, str):
        return traits
    rewriting = replace(traits, rewrites_base=True, multi_adapter=False)
    if init == "olora":
        return replace(rewriting.unquantized(OLORA), conv1d=False)
    if init == "loftq":
        return rewriting.unquantized(LOFTQ)
    if init.startswith(("pissa", "corda", "lora_ga")):
        return rewriting.unquantized()
    return traits.unquantized() if init in ("orthogonal", "mica") else traits


# How many times lower LoRA's rate must be with such an initialization, measured on Qwen3-0.6B (arXiv:2602.04998).
# CorDA, not measured there, also starts from principal components of the weights.
INIT_DIVISORS = {"pissa": 10.0, "corda": 10.0, "olora": 3.2, "lora_ga": 18.0}


def lora_rate_factor(settings: SheetValues) -> float:
    """What the initialization and the scaling change.

    Adam moves B by the learning rate whatever the scale is, so that the update of the weights, a sum over the rank, is
    proportional to rate times scale times rank; the rule's point has 32 for scale times rank (``lora_alpha=32``).
    """
    rank, alpha = settings.get("r", 16), settings.get("lora_alpha", 32)
    reach = alpha * rank**0.5 if settings.get("use_rslora") else alpha
    init = str(settings.get("init_lora_weights", True))
    divisor = next((value for name, value in INIT_DIVISORS.items() if init.startswith(name)), 1.0)
    return float(32 / reach / divisor)


def target_rank(settings: SheetValues, initial: int) -> dict[str, int]:
    """The mean rank after pruning, two thirds of the initial one, as PEFT and the published scripts have it."""
    return {"target_r": max(1, round(initial * 2 / 3))}


class LoraHooks(Hooks):
    """LoRA-FA and LoRA+ are optimizers."""

    def optimizer(
        self, model: "PeftModel", settings: SheetValues, learning_rate: float, weight_decay: float
    ) -> "Optimizer | None":
        """LoRA-FA's, which freezes A when it is made; LoRA+'s, in which B learns faster than A; or none."""
        import torch
        from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer

        if settings.get("lora_fa"):
            rank, alpha = settings["r"], settings["lora_alpha"]
            return create_lorafa_optimizer(model, rank, alpha, lr=learning_rate, weight_decay=weight_decay)
        if settings.get("loraplus_lr_ratio") is not None:
            return create_loraplus_optimizer(
                model,
                torch.optim.AdamW,
                lr=learning_rate,
                loraplus_lr_ratio=settings["loraplus_lr_ratio"],
                loraplus_weight_decay=weight_decay,
            )
        return None


class AdaLoraHooks(Hooks):
    """Adds an orthogonality penalty to the loss, and prunes ranks while training."""

    penalties = ("orth_reg_weight",)

    def after_optimizer_step(self, model: "PeftModel", step: int) -> None:
        """Prune ranks by importance, which needs the gradients."""
        _, _, tuner = adapter_of(model)
        tuner.update_and_allocate(step)

    def first_keepable_step(self, model: "PeftModel") -> int:
        _, config, _ = adapter_of(model)
        return int(config.total_step - config.tfinal)

    def remaining_parameters(self, model: "PeftModel") -> int | None:
        """Rows, columns and singular values that pruning left."""
        name, config, _ = adapter_of(model)
        if not config.rank_pattern:
            return None
        total = 0
        for path, layer in model.named_modules():
            if hasattr(layer, "lora_E"):
                [kept] = [ranks for key, ranks in config.rank_pattern.items() if f"{path}.lora_E".endswith(key)]
                total += sum(kept) * (layer.lora_A[name].shape[1] + layer.lora_B[name].shape[0] + 1)
        return total

    def state(self, model: "PeftModel") -> dict[str, Any]:
        _, config, tuner = adapter_of(model)
        kept = {key: getattr(tuner.rankallocator, key) for key in ALLOCATOR_STATE}
        return {"rank_pattern": config.rank_pattern, "allocator": kept}

    def load_state(self, model: "PeftModel", state: Mapping[str, Any]) -> None:
        _, config, tuner = adapter_of(model)
        config.rank_pattern = state["rank_pattern"]
        weights = dict(tuner.model.named_parameters())
        for key, values in state["allocator"].items():
            placed = {each: value.to(weights[each].device) for each, value in values.items()}
            setattr(tuner.rankallocator, key, placed)


METHODS = {
    "lora": Method(
        Lora,
        build_lora,
        DROPS,
        check_lora,
        lora_traits,
        LoraHooks(),
        rate=RateRule(
            0.005,
            0.003,
            "measured on E2E and GSM8K; tinker-cookbook's formula gives 1.3e-3 at this width",
            factor=lora_rate_factor,
            gemma=0.35,
        ),
        knobs=(Knob("r", up_to_width, beside=("rank_pattern",)),),
    ),
    "adalora": Method(
        AdaLora,
        build_adalora,
        Traits(dropout=True, multi_adapter=False, why_unsharded="prunes ranks by whole weights and gradients"),
        check_adalora,
        hooks=AdaLoraHooks(),
        rate=RateRule(0.02, 0.015, "measured on E2E; AdaLoRA (arXiv:2303.10512) table 8 uses 5e-4 to 2.2e-3"),
        knobs=(Knob("init_r", up_to_width, along=target_rank),),
    ),
}
