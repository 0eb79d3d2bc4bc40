"""Methods that add to what the model reads: from a sheet to a PEFT configuration."""

from typing import TYPE_CHECKING

from harness.errors import ModelFault
from harness.situation import Settings, Situation, context, given

if TYPE_CHECKING:
    from peft import PeftConfig

LABEL = 4  # of CPT's token types, which repeat every four


def prompt_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learnt input embeddings before the prompt."""
    from peft import PromptTuningConfig

    rest = given(settings, situation)
    if rest["prompt_tuning_init"] == "TEXT":
        rest.setdefault("tokenizer_name_or_path", situation.tokenizer_path)
    return PromptTuningConfig(**rest)


def prefix_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learnt keys and values, through an MLP (sec. 4.3)."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(**{"encoder_hidden_size": situation.hidden_size} | given(settings, situation))


def p_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): prompt embeddings that an MLP or LSTM produces."""
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(**{"encoder_hidden_size": situation.hidden_size} | given(settings, situation))


def p_tuning_v2(settings: Settings, situation: Situation) -> "PeftConfig":
    """P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): learnt keys and values at every layer, no encoder."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(**{"prefix_projection": False} | given(settings, situation))


def cpt(settings: Settings, situation: Situation) -> "PeftConfig":
    """CPT (Blau et al. 2024, arXiv:2410.17222): embeddings of training examples before the prompt, moved a little.

    The loss covers the labels of the context too, as in the paper.

    Raises:
        ModelFault: the highest type of a context token is no label, which PEFT would read as: train on nothing.
    """
    from peft import CPTConfig

    rest = given(settings, situation)
    length = rest.pop("num_virtual_tokens")
    if "cpt_token_ids" not in rest and situation.batches is None:
        rest["cpt_token_ids"] = [0] * length  # counting: the tokens themselves do not matter
    if "cpt_token_ids" not in rest:
        rest["cpt_token_ids"], rest["cpt_tokens_type_mask"] = context(situation, length)
    # Without types of their own all tokens are input, but for a last one that counts as label.
    types = rest.setdefault("cpt_tokens_type_mask", [2] * (len(rest["cpt_token_ids"]) - 1) + [LABEL])
    if max(types) % LABEL:
        raise ModelFault(
            f"cpt.cpt_tokens_type_mask has {max(types)} as its highest type; end with a label token (a multiple of "
            f"{LABEL}), from which PEFT counts on, or no token is trained on"
        )
    return CPTConfig(task_type="CAUSAL_LM", **rest)


def llama_adapter(settings: Settings, situation: Situation) -> "PeftConfig":
    """LLaMA-Adapter (Zhang et al. 2023, arXiv:2303.16199): prompts in the upper layers' attention, gated from zero."""
    from peft import AdaptionPromptConfig

    upper = max(1, situation.num_layers - 2)
    return AdaptionPromptConfig(**{"adapter_layers": upper} | given(settings, situation))
