"""The comparison on one page: each method is a function from its sheet to a PEFT configuration.

To add a method: one function here, one line in ``METHODS``, one sheet under ``conf/peft/knobs/`` with its
dataclass in ``schema``. ``attach`` puts the method onto a base model and is the same for all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Situation:
    """What a method may need to know besides its own settings."""

    optimizer_steps: int
    tokenizer_path: str
    seed: int
    hidden_size: int


Settings = Mapping[str, Any]


def full(settings: Settings, situation: Situation) -> "PeftConfig":
    """Full fine-tuning: every weight of the base."""
    from harness.tuners.full import FullConfig

    return FullConfig(**settings)


def partial(settings: Settings, situation: Situation) -> "PeftConfig":
    """The last layers and named modules only."""
    from harness.tuners.partial import PartialConfig

    return PartialConfig(**settings)


def lora(settings: Settings, situation: Situation) -> "PeftConfig":
    """LoRA (Hu et al. 2021, arXiv:2106.09685, sec. 4.1): W + (alpha / r) B A.

    rsLoRA (arXiv:2312.03732), DoRA (arXiv:2402.09353), PiSSA (arXiv:2404.02948) and OLoRA
    (arXiv:2406.01775) are settings of it.
    """
    from peft import LoraConfig

    _no_wider_than(settings["r"], "lora.r", situation)
    return LoraConfig(**settings)


def loha(settings: Settings, situation: Situation) -> "PeftConfig":
    """LoHa (FedPara, Hyeon-Woo et al. 2022, arXiv:2108.06098): Hadamard product of two low-rank updates."""
    from peft import LoHaConfig

    return LoHaConfig(**settings)


def lokr(settings: Settings, situation: Situation) -> "PeftConfig":
    """LoKr (LyCORIS, Yeh et al. 2024, arXiv:2309.14859): Kronecker product of two small updates."""
    from peft import LoKrConfig

    return LoKrConfig(**settings)


def adalora(settings: Settings, situation: Situation) -> "PeftConfig":
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): an SVD-shaped update whose ranks are pruned in training.

    Raises:
        ModelFault: the run has too few optimizer steps for warm-up, pruning and the final phase.
    """
    from peft import AdaLoraConfig

    steps = situation.optimizer_steps
    rest = dict(settings)
    tinit, tfinal = int(rest.pop("warmup_share") * steps), int(rest.pop("final_share") * steps)
    if not tinit < steps - tfinal:
        raise ModelFault(
            f"peft=adalora has no step left to prune in: {steps} optimizer steps, of which {tinit} warm up and "
            f"{tfinal} follow the pruning; train longer (trainer.max_steps, trainer.epochs) or lower "
            "adalora.warmup_share or adalora.final_share"
        )
    _no_wider_than(rest["init_r"], "adalora.init_r", situation)
    return AdaLoraConfig(**rest, total_step=steps, tinit=tinit, tfinal=tfinal)


def ia3(settings: Settings, situation: Situation) -> "PeftConfig":
    """IA3 (Liu et al. 2022, arXiv:2205.05638, sec. 3.3): learnt scales of keys, values and MLP activations."""
    from peft import IA3Config

    return IA3Config(**settings)


def prompt_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learnt input embeddings before the prompt."""
    from peft import PromptTuningConfig

    with_text = settings["prompt_tuning_init"] == "TEXT"
    tokenizer = situation.tokenizer_path if with_text else None
    return PromptTuningConfig(**settings, tokenizer_name_or_path=tokenizer)


def prefix_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learnt keys and values, through an MLP (sec. 4.3)."""
    from peft import PrefixTuningConfig

    width = settings["encoder_hidden_size"] or situation.hidden_size
    return PrefixTuningConfig(**{**settings, "encoder_hidden_size": width})


def p_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): prompt embeddings that an MLP or LSTM produces."""
    from peft import PromptEncoderConfig

    width = settings["encoder_hidden_size"] or situation.hidden_size
    return PromptEncoderConfig(**{**settings, "encoder_hidden_size": width})


def p_tuning_v2(settings: Settings, situation: Situation) -> "PeftConfig":
    """P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): learnt keys and values at every layer, no encoder."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(**settings, prefix_projection=False)


METHODS: dict[str, Callable[[Settings, Situation], "PeftConfig"]] = {
    "full": full,
    "partial": partial,
    "lora": lora,
    "loha": loha,
    "lokr": lokr,
    "adalora": adalora,
    "ia3": ia3,
    "prompt_tuning": prompt_tuning,
    "prefix_tuning": prefix_tuning,
    "p_tuning": p_tuning,
    "p_tuning_v2": p_tuning_v2,
}

# PEFT puts virtual tokens before left padding and drops position ids: only equal lengths score right.
PROMPT_LEARNING = frozenset({"prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"})


def changes_base(method: str, settings: Settings) -> bool:
    """Whether the method writes into base weights, so that it needs a copy of its own."""
    rewriting = str(settings.get("init_lora_weights")).startswith(("pissa", "olora"))
    return method == "full" or (method == "lora" and rewriting)


def attach(model: "PreTrainedModel", method: str, settings: Settings, situation: Situation) -> "PeftModel":
    """The base model with the method on it; global random state must be seeded before.

    Trainable weights are float32 whatever the base is: half-precision weights lose small updates, and
    loss scaling refuses them. On the meta device nothing is initialised; parameters can be counted.

    Raises:
        ModelFault: the method does not fit this model, e.g. target modules that match nothing.
    """
    from peft import get_peft_model

    from harness import tuners

    tuners.register()
    on_meta = next(model.parameters()).is_meta
    config = METHODS[method](_without_start(settings) if on_meta else settings, situation)
    config.task_type = "CAUSAL_LM"
    try:
        adapted = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
    except (ValueError, AttributeError, KeyError, NotImplementedError, RuntimeError, AssertionError) as error:
        raise ModelFault(_explain(error, method, settings, model)) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype.is_floating_point and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise ModelFault(f"peft={method} has nothing to train on this model; change its target modules")
    return adapted


def situation_for(plan: Any, config: Any, tokenizer_path: str, optimizer_steps: int) -> Situation:
    """Facts of one run that its method may need."""
    text = config.get_text_config()
    return Situation(optimizer_steps, tokenizer_path, plan.seed, text.hidden_size)


def targeted(model: "PeftModel") -> list[str]:
    """Names of the base modules that the method sits on, e.g. ``layers.0.self_attn.q_proj``; empty for prompts."""
    names = getattr(model.base_model, "targeted_module_names", [])
    return sorted(set(names))


def for_counting(situation: Situation) -> Situation:
    """The same facts with enough steps for any schedule, when only parameters are counted."""
    return replace(situation, optimizer_steps=max(situation.optimizer_steps, 1000))


def _without_start(settings: Settings) -> Settings:
    """Settings whose initialisation needs no weights: counts do not depend on it."""
    if "init_lora_weights" in settings:
        return {**settings, "init_lora_weights": True}
    if settings.get("prompt_tuning_init") == "SAMPLE_VOCAB":
        return {**settings, "prompt_tuning_init": "RANDOM"}
    return settings


def _no_wider_than(rank: int, key: str, situation: Situation) -> None:
    if rank > situation.hidden_size:
        raise ModelFault(f"{key}={rank} exceeds the hidden size {situation.hidden_size} of the model; lower {key}")


def _explain(error: Exception, method: str, settings: Settings, model: "PreTrainedModel") -> str:
    """PEFT's complaint, in terms of our keys, with the names that would have matched."""
    from torch.nn import Linear

    reason = " ".join(str(error).split())
    text = f"peft={method} does not fit this model: {reason}"
    if "target" in reason.lower():
        linear = sorted(
            {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, Linear)}
        )
        text = (
            f"{method}.target_modules={settings.get('target_modules')} matches nothing in this model; its linear "
            f"layers end in {', '.join(linear)}"
        )
    return text
