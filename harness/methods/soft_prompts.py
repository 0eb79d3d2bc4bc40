"""Methods that add to what the model reads: from a sheet to a PEFT configuration."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault, one_of
from harness.frozen import ConfigNode
from harness.methods.context import BuildContext, SheetValues, cpt_context, peft_kwargs

if TYPE_CHECKING:
    from peft import PeftConfig

LABEL = 4  # of CPT's token types, which repeat every four


def prompt_tuning(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learnt input embeddings before the prompt."""
    from peft import PromptTuningConfig

    rest = peft_kwargs(settings, situation)
    if rest["prompt_tuning_init"] == "TEXT":
        rest.setdefault("tokenizer_name_or_path", situation.tokenizer_path)
    return PromptTuningConfig(**rest)


def prefix_tuning(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learnt keys and values, through an MLP (sec. 4.3)."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(**{"encoder_hidden_size": situation.hidden_size} | peft_kwargs(settings, situation))


def p_tuning(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): prompt embeddings that an MLP or LSTM produces."""
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(**{"encoder_hidden_size": situation.hidden_size} | peft_kwargs(settings, situation))


def p_tuning_v2(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): learnt keys and values at every layer, no encoder."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(**{"prefix_projection": False} | peft_kwargs(settings, situation))


def cpt(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """CPT (Blau et al. 2024, arXiv:2410.17222): embeddings of training examples before the prompt, moved a little.

    The loss covers the labels of the context too, as in the paper.

    Raises:
        ModelFault: the highest type of a context token is no label, which PEFT would read as: train on nothing.
    """
    from peft import CPTConfig

    rest = peft_kwargs(settings, situation)
    length = rest.pop("num_virtual_tokens")
    if "cpt_token_ids" not in rest and situation.batches is None:
        rest["cpt_token_ids"] = [0] * length  # counting: the tokens themselves do not matter
    if "cpt_token_ids" not in rest:
        rest["cpt_token_ids"], rest["cpt_tokens_type_mask"] = cpt_context(situation, length)
    # Without types of their own all tokens are input, but for a last one that counts as label.
    types = rest.setdefault("cpt_tokens_type_mask", [2] * (len(rest["cpt_token_ids"]) - 1) + [LABEL])
    if max(types) % LABEL:
        raise ModelFault(
            f"cpt.cpt_tokens_type_mask has {max(types)} as its highest type; end with a label token (a multiple of "
            f"{LABEL}), from which PEFT counts on, or no token is trained on"
        )
    return CPTConfig(task_type="CAUSAL_LM", **rest)


def llama_adapter(settings: SheetValues, situation: BuildContext) -> "PeftConfig":
    """LLaMA-Adapter (Zhang et al. 2023, arXiv:2303.16199): prompts in the upper layers' attention, gated from zero."""
    from peft import AdaptionPromptConfig

    upper = max(1, situation.num_layers - 2)
    return AdaptionPromptConfig(**{"adapter_layers": upper} | peft_kwargs(settings, situation))


PROMPT_INITS = ("RANDOM", "SAMPLE_VOCAB", "TEXT")


def check_cpt(config: Any) -> list[str]:
    sheet = config.cpt
    ids = sheet.cpt_token_ids
    found = []
    for name in ("cpt_mask", "cpt_tokens_type_mask"):
        values = getattr(sheet, name)
        if values is not None and len(values) != len(ids or ()):
            found.append(
                f"cpt.{name} has {len(values)} entries for {len(ids or ())} of cpt.cpt_token_ids; give one each"
            )
    return found


def check_prompt_tuning(config: Any) -> list[str]:
    sheet = config.prompt_tuning
    found = list(one_of("prompt_tuning.prompt_tuning_init", sheet.prompt_tuning_init, PROMPT_INITS))
    if sheet.prompt_tuning_init == "TEXT" and not sheet.prompt_tuning_init_text:
        found.append("prompt_tuning.prompt_tuning_init=TEXT needs prompt_tuning.prompt_tuning_init_text")
    return found


def check_prefix(config: Any) -> list[str]:
    if config.trainer.gradient_checkpointing:
        return [
            f"peft={config.peft.method} keeps its prefix in the key-value cache, which "
            "trainer.gradient_checkpointing=true switches off; set it to false"
        ]
    return []


def check_p_tuning(config: Any) -> list[str]:
    return list(
        one_of(
            "p_tuning.encoder_reparameterization_type",
            config.p_tuning.encoder_reparameterization_type,
            ("MLP", "LSTM"),
        )
    )


def check_p_tuning_v2(config: Any) -> list[str]:
    return [
        *one_of("p_tuning_v2.init_weights", config.p_tuning_v2.init_weights, (None, "zero")),
        *check_prefix(config),
    ]


# Methods that add to what the model reads.


@dataclass
class PromptTuning(ConfigNode):
    """Prompt tuning: ``PromptTuningConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    prompt_tuning_init: str  # RANDOM, SAMPLE_VOCAB or TEXT
    prompt_tuning_init_text: str | None


@dataclass
class PrefixTuning(ConfigNode):
    """Prefix tuning with the reparameterising MLP: ``PrefixTuningConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    encoder_hidden_size: int | None  # null: the model's hidden size
    prefix_projection: bool


@dataclass
class PTuning(ConfigNode):
    """P-tuning: ``PromptEncoderConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    encoder_reparameterization_type: str  # MLP or LSTM
    encoder_hidden_size: int | None
    encoder_num_layers: int
    encoder_dropout: float


@dataclass
class PTuningV2(ConfigNode):
    """P-tuning v2: ``PrefixTuningConfig`` without a projection."""

    learning_rate: float
    num_virtual_tokens: int
    init_weights: str | None  # zero starts as the base model


@dataclass
class Cpt(ConfigNode):
    """CPT: ``CPTConfig``; the context is given as tokens, or taken from the training rows."""

    learning_rate: float
    num_virtual_tokens: int
    cpt_token_ids: list[int] | None
    cpt_mask: list[int] | None
    cpt_tokens_type_mask: list[int] | None
    opt_weighted_loss_type: str
    opt_loss_decay_factor: float
    opt_projection_epsilon: float
    opt_projection_format_epsilon: float


@dataclass
class LlamaAdapter(ConfigNode):
    """LLaMA-Adapter: ``AdaptionPromptConfig``."""

    learning_rate: float
    adapter_len: int
    adapter_layers: int | None
    target_modules: str | None
