"""LoRA and AdaLoRA."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault, above, at_least, fraction, one_of
from harness.frozen import ConfigNode
from harness.methods.context import BuildContext, SheetValues, peft_kwargs, refuse_wider_than
from harness.methods.fields import Placed
from harness.methods.traits import Traits

if TYPE_CHECKING:
    from peft import PeftConfig

# Why initialisations of LoRA that replace base weights want them unquantised.
OLORA = "takes its start out of base weights that are then rounded again: the saved adapter would not fit its base"


LOFTQ = "quantises the base itself, so it wants one that is not quantised yet"


def of_start(known: Traits, init: str) -> Traits:
    """LoRA's traits under an ``init_lora_weights`` other than its own.

    One that writes into base weights leaves room for no second adapter: its start would shift the first.
    """
    rewriting = replace(known, rewrites_base=True, multi_adapter=False)
    if init == "olora":
        return replace(rewriting.unquantised(OLORA), conv1d=False)
    if init == "loftq":
        return rewriting.unquantised(LOFTQ)
    if init.startswith(("pissa", "corda", "lora_ga")):
        return rewriting.unquantised()
    return known.unquantised() if init in ("orthogonal", "mica") else known


LORA_INITS = (True, False, "gaussian", "pissa", "olora", "orthogonal", "mica", "eva", "corda", "lora_ga", "loftq")


BIASES = ("none", "all", "lora_only")


def check_lora(config: Any) -> list[str]:
    init = config.lora.init_lora_weights
    found = list(one_of("lora.bias", config.lora.bias, BIASES))
    if not (isinstance(init, str) and init.startswith("pissa_niter_") and init[12:].isdigit()):
        found += one_of("lora.init_lora_weights", init, LORA_INITS)
    if config.lora.lora_fa and config.lora.loraplus_lr_ratio is not None:
        found.append("lora.lora_fa=true and lora.loraplus_lr_ratio each bring an optimizer; unset one of them")
    if config.lora.lora_fa and config.lora.use_dora:
        found.append("lora.lora_fa=true takes pairs of A and B, and lora.use_dora=true adds a third; unset one of them")
    found += at_least("lora.loraplus_lr_ratio", config.lora.loraplus_lr_ratio, 1)
    for name in ("eva", "corda", "lora_ga", "loftq"):
        if getattr(config.lora, f"{name}_config") and init != name:
            found.append(
                f"lora.{name}_config has no effect without lora.init_lora_weights={name}; unset it or set that"
            )
    return found


def check_adalora(config: Any) -> list[str]:
    sheet = config.adalora
    found = [
        *fraction("adalora.warmup_share", sheet.warmup_share),
        *fraction("adalora.final_share", sheet.final_share),
        *above("adalora.orth_reg_weight", sheet.orth_reg_weight, 0),
        *(
            f"adalora.{name}={beta} must be above 0 and below 1"
            for name, beta in (("beta1", sheet.beta1), ("beta2", sheet.beta2))
            if not 0 < beta < 1
        ),
    ]
    if sheet.target_r > sheet.init_r:
        found.append(
            f"adalora.target_r={sheet.target_r} exceeds adalora.init_r={sheet.init_r}; pruning only lowers ranks"
        )
    if max(sheet.warmup_share, sheet.final_share) < 1 <= sheet.warmup_share + sheet.final_share:
        found.append("adalora.warmup_share + adalora.final_share leave no step to prune in; lower them below 1")
    return found


# Methods that add a low-rank or otherwise small update to weights.


@dataclass
class Lora(Placed):
    """LoRA: ``LoraConfig``, its initialisations and its optimizers."""

    r: int
    lora_alpha: float
    lora_dropout: float
    bias: str
    use_rslora: bool
    use_dora: bool
    init_lora_weights: Any
    eva_config: dict[str, Any]
    corda_config: dict[str, Any]
    lora_ga_config: dict[str, Any]
    loftq_config: dict[str, Any]
    lora_fa: bool
    loraplus_lr_ratio: float | None
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]


@dataclass
class AdaLora(ConfigNode):
    """AdaLoRA: ``AdaLoraConfig``. ``total_step`` is the run's own."""

    learning_rate: float
    init_r: int
    target_r: int
    warmup_share: float  # of the optimizer steps before pruning starts (tinit)
    final_share: float  # of the optimizer steps after pruning ends (tfinal)
    deltaT: int
    beta1: float
    beta2: float
    orth_reg_weight: float
    lora_alpha: float
    lora_dropout: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


def lora(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """LoRA (Hu et al. 2021, arXiv:2106.09685, sec. 4.1): W + (alpha / r) B A.

    Settings of it: rsLoRA (arXiv:2312.03732), DoRA (arXiv:2402.09353); the initialisations PiSSA
    (arXiv:2404.02948), OLoRA (arXiv:2406.01775), EVA (arXiv:2410.07170), CorDA (arXiv:2406.05223), LoRA-GA
    (arXiv:2407.05000), LoftQ (arXiv:2310.08659) and MiCA; the optimizers LoRA-FA (arXiv:2308.03303) and LoRA+
    (arXiv:2402.12354).
    """
    from peft import LoraConfig

    rest = peft_kwargs(settings, situation)
    rest.pop("lora_fa", None)  # these two choose the optimizer
    rest.pop("loraplus_lr_ratio", None)
    refuse_wider_than(rest["r"], "lora.r", situation)
    if rest.get("init_lora_weights") == "loftq":
        require_loftq()
    return LoraConfig(**_with_start(rest))


def _with_start(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the sub-configuration of their initialisation alone, which PEFT wants as an object."""
    from peft.tuners.lora.config import CordaConfig, EvaConfig, LoftQConfig, LoraGAConfig

    kinds = {"eva": EvaConfig, "corda": CordaConfig, "lora_ga": LoraGAConfig, "loftq": LoftQConfig}
    for name, kind in kinds.items():
        values = settings.pop(f"{name}_config", None) or {}
        if settings.get("init_lora_weights") == name:
            settings[f"{name}_config"] = kind(**values)
    return settings


def adalora(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): an SVD-shaped update whose ranks are pruned in training.

    Raises:
        ModelFault: the run has too few optimizer steps for warm-up, pruning and the final phase.
    """
    from peft import AdaLoraConfig

    steps = situation.optimizer_steps
    rest = peft_kwargs(settings, situation)
    tinit, tfinal = int(rest.pop("warmup_share") * steps), int(rest.pop("final_share") * steps)
    if not max(tinit, 1) < steps - tfinal:  # pruning needs the importance that one step before it gave
        raise ModelFault(
            f"peft=adalora has no step left to prune in: {steps} optimizer steps, of which {tinit} warm up and "
            f"{tfinal} follow the pruning; train longer (trainer.max_steps, trainer.epochs) or lower "
            "adalora.warmup_share or adalora.final_share"
        )
    refuse_wider_than(rest["init_r"], "adalora.init_r", situation)
    return AdaLoraConfig(**{"total_step": steps, "tinit": tinit, "tfinal": tfinal} | rest)


def require_loftq() -> None:
    """Refuse LoftQ where what it quantises with is missing. Raises ``ModelFault``."""
    from importlib.util import find_spec

    import torch

    lacks = [] if find_spec("bitsandbytes") else ["bitsandbytes is not installed (pip install 'peft-harness[quant]')"]
    lacks += [] if find_spec("scipy") else ["scipy, which PEFT asks for, is not installed (pip install scipy)"]
    lacks += [] if torch.cuda.is_available() else ["this machine has no GPU"]
    if lacks:
        raise ModelFault(
            f"lora.init_lora_weights=loftq quantises on a GPU with bitsandbytes; {', and '.join(lacks)}; choose "
            "another initialisation, such as pissa"
        )
