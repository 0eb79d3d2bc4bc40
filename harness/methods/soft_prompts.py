"""Methods that add to what the model reads."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.frozen import text
from harness.methods.context import BuildContext, SheetValues, cpt_context, peft_kwargs
from harness.methods.fields import Sheet, choice, count, module_names, positive, share
from harness.methods.hooks import Hooks, adapter_of
from harness.methods.knobs import TRAINABLE, Knob, counts
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import NO_MERGE, PREFIX, PROMPT

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

LABEL = 4  # of the types of CPT's context tokens, which repeat every four


@dataclass(kw_only=True)
class PromptTuning(Sheet):
    """Prompt tuning: ``PromptTuningConfig``."""

    num_virtual_tokens: int = count()
    prompt_tuning_init: str = choice("RANDOM", "SAMPLE_VOCAB", "TEXT")  # RANDOM, SAMPLE_VOCAB or TEXT
    prompt_tuning_init_text: str | None = text()


def check_prompt_tuning(sheet: PromptTuning) -> Iterator[str]:
    if sheet.prompt_tuning_init == "TEXT" and not sheet.prompt_tuning_init_text:
        yield "prompt_tuning.prompt_tuning_init=TEXT needs prompt_tuning.prompt_tuning_init_text"


def build_prompt_tuning(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learned input embeddings before the prompt."""
    from peft import PromptTuningConfig

    rest = peft_kwargs(settings, context)
    if rest["prompt_tuning_init"] == "TEXT":
        rest.setdefault("tokenizer_name_or_path", context.tokenizer_path)
    return PromptTuningConfig(**rest)


@dataclass(kw_only=True)
class PrefixTuning(Sheet):
    """Prefix tuning with the reparameterizing MLP: ``PrefixTuningConfig``."""

    num_virtual_tokens: int = count()
    encoder_hidden_size: int | None = count()  # null: the model's hidden size
    prefix_projection: bool
    init_scale: float = positive()  # of the first keys and values


def build_prefix_tuning(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learned keys and values, through an MLP (sec. 4.3)."""
    from peft import PrefixTuningConfig

    own = {name: value for name, value in settings.items() if name != "init_scale"}
    return PrefixTuningConfig(**{"encoder_hidden_size": context.hidden_size} | peft_kwargs(own, context))


class PrefixTuningHooks(Hooks):
    """Starts from smaller keys and values than those that PEFT's first MLP gives."""

    def initialize(self, model: "PeftModel", settings: SheetValues) -> None:
        name, _, _ = adapter_of(model)
        encoders: Any = model.prompt_encoder
        last = encoders[name].transform[-1] if settings["prefix_projection"] else encoders[name].embedding
        for weight in last.parameters():
            weight.data.mul_(settings["init_scale"])


@dataclass(kw_only=True)
class PTuning(Sheet):
    """P-tuning: ``PromptEncoderConfig``."""

    num_virtual_tokens: int = count()
    encoder_reparameterization_type: str = choice("MLP", "LSTM")  # MLP or LSTM
    encoder_hidden_size: int | None = count()
    encoder_num_layers: int = count()
    encoder_dropout: float = share()


def build_p_tuning(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): prompt embeddings that an MLP or LSTM produces."""
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(**{"encoder_hidden_size": context.hidden_size} | peft_kwargs(settings, context))


@dataclass(kw_only=True)
class PTuningV2(Sheet):
    """P-tuning v2: ``PrefixTuningConfig`` without a projection."""

    num_virtual_tokens: int = count()
    init_weights: str | None = choice(None, "zero")
    init_std: float = positive()  # of the first keys and values


def build_p_tuning_v2(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): learned keys and values at every layer, no encoder."""
    from peft import PrefixTuningConfig

    own = {name: value for name, value in settings.items() if name != "init_std"}
    return PrefixTuningConfig(**{"prefix_projection": False} | peft_kwargs(own, context))


class PTuningV2Hooks(Hooks):
    """Starts from smaller keys and values than PEFT, and the published code, draw from N(0, 1)."""

    def initialize(self, model: "PeftModel", settings: SheetValues) -> None:
        name, _, _ = adapter_of(model)
        encoders: Any = model.prompt_encoder
        encoders[name].embedding.weight.data.mul_(settings["init_std"])


@dataclass(kw_only=True)
class Cpt(Sheet):
    """CPT: ``CPTConfig``; the context is given as tokens, or taken from the training rows."""

    num_virtual_tokens: int = count()
    cpt_token_ids: list[int] | None
    cpt_mask: list[int] | None
    cpt_tokens_type_mask: list[int] | None
    opt_weighted_loss_type: str = choice("none", "decay")
    opt_loss_decay_factor: float
    opt_projection_epsilon: float
    opt_projection_format_epsilon: float


def check_cpt(sheet: Cpt) -> Iterator[str]:
    count = len(sheet.cpt_token_ids or ())
    for name in ("cpt_mask", "cpt_tokens_type_mask"):
        values = getattr(sheet, name)
        if values is not None and len(values) != count:
            yield f"cpt.{name} has {len(values)} entries for {count} of cpt.cpt_token_ids; give one for each"


def build_cpt(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """CPT (Blau et al. 2024, arXiv:2410.17222): embeddings of training examples before the prompt, moved a little.

    The loss covers the labels of the context too, as in the paper.

    Raises:
        ModelFault: the highest type of a context token is no label, which PEFT would read as: train on nothing.
    """
    from peft import CPTConfig

    rest = peft_kwargs(settings, context)
    length = rest.pop("num_virtual_tokens")
    if "cpt_token_ids" not in rest and context.batches is None:
        rest["cpt_token_ids"] = [0] * length  # counting: the tokens themselves do not matter
    if "cpt_token_ids" not in rest:
        rest["cpt_token_ids"], rest["cpt_tokens_type_mask"] = cpt_context(context, length)
    # Without types of their own all tokens are input, but for a last one that counts as label.
    types = rest.setdefault("cpt_tokens_type_mask", [2] * (len(rest["cpt_token_ids"]) - 1) + [LABEL])
    if max(types) % LABEL:
        raise ModelFault(
            f"cpt.cpt_tokens_type_mask has {max(types)} as its highest type; end with a label token (a multiple of "
            f"{LABEL}), from which PEFT counts on, or no token is trained on"
        )
    return CPTConfig(task_type="CAUSAL_LM", **rest)


@dataclass(kw_only=True)
class LlamaAdapter(Sheet):
    """LLaMA-Adapter: ``AdaptionPromptConfig``."""

    adapter_len: int = count()
    adapter_layers: int | None = count()
    target_modules: str | None = module_names()


def build_llama_adapter(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """LLaMA-Adapter (Zhang et al. 2023, arXiv:2303.16199): prompts in the upper layers' attention, gated from zero."""
    from peft import AdaptionPromptConfig

    upper = max(1, context.num_layers - 2)
    return AdaptionPromptConfig(**{"adapter_layers": upper} | peft_kwargs(settings, context))


class CptHooks(Hooks):
    """CPT computes its own loss, over the labels of its context too."""

    own_loss = True


def encodes(settings: SheetValues, quantity: str) -> bool:
    """Whether a network makes the prompt: it is trained, and then left out of the adapter; its operations are few."""
    return quantity == TRAINABLE and settings.get("prefix_projection", True)


VIRTUAL_TOKENS = Knob("num_virtual_tokens", counts)
ENCODER = Knob("encoder_hidden_size", counts, serves=encodes)

METHODS = {
    "prompt_tuning": Method(
        PromptTuning,
        build_prompt_tuning,
        PROMPT,
        check_prompt_tuning,
        rate=RateRule(0.1, 0.05, "measured on E2E, GSM8K and SNIPS; PEFT-Factory uses 3e-2", gemma=10.0),
        knobs=(VIRTUAL_TOKENS,),
    ),
    "prefix_tuning": Method(
        PrefixTuning,
        build_prefix_tuning,
        PREFIX,
        hooks=PrefixTuningHooks(),
        rate=RateRule(0.01, 0.002, "measured on E2E, GSM8K and SNIPS; T-Few uses 3e-3 from another start", gemma=1.6),
        knobs=(ENCODER, VIRTUAL_TOKENS),
    ),
    "p_tuning": Method(
        PTuning,
        build_p_tuning,
        replace(PROMPT, dropout=True),
        rate=RateRule(0.003, 0.0004, "measured on E2E and SNIPS", gemma=10.0),
        knobs=(ENCODER, VIRTUAL_TOKENS),
    ),
    "p_tuning_v2": Method(
        PTuningV2,
        build_p_tuning_v2,
        PREFIX,
        hooks=PTuningV2Hooks(),
        rate=RateRule(
            0.3, 0.2, "measured on E2E and SNIPS; the published scripts: 5e-3 to 1e-2 from another start", gemma=2.0
        ),
        knobs=(VIRTUAL_TOKENS,),
    ),
    "cpt": Method(
        Cpt,
        build_cpt,
        replace(PROMPT, why_one_process="takes the mean of each batch for itself"),
        check_cpt,
        hooks=CptHooks(),
        rate=RateRule(0.03, 0.01, "interpolated"),
        knobs=(replace(VIRTUAL_TOKENS, beside=("cpt_token_ids",)),),
    ),
    "llama_adapter": Method(
        LlamaAdapter,
        build_llama_adapter,
        replace(NO_MERGE, token_wise=False),
        rate=RateRule(0.1, 0.01, "PEFT method_comparison 5e-3 at 3B"),
        knobs=(Knob("adapter_len", counts),),
    ),
}
