"""The comparison on one page: every method, how it is built and what it can do.

To add a method: one function in ``weight_methods`` or ``prompt_methods``, one line in ``METHODS``, one sheet
(``conf/peft/knobs/<method>.yaml`` and its dataclass in ``sheets``), named in ``conf/config.yaml``,
``schema.Config`` and ``conf/peft/<method>.yaml``. ``attach`` is the same for all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import fitting, library, prompt_methods, quirks, starts, weight_methods
from harness.errors import ModelFault
from harness.situation import SEEDS, Batch, Settings, Situation, for_counting

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig, PeftModel
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

__all__ = ["METHODS", "Situation", "Traits", "attach", "for_counting", "optimizer_for", "situation_for"]


@dataclass(frozen=True)
class Traits:
    """What a method can do at its sheet's settings; tests hold each to behaviour."""

    mergeable: bool = True  # into plain base weights, which then need no PEFT
    identity_at_start: bool = True  # before training the model is the base model
    on_quantised_base: bool = True  # over 4-bit weights of bitsandbytes
    checkpointing: bool = True  # gradient checkpointing
    dropout: bool = False  # has a dropout of its own
    tied_embeddings: bool = False  # trains an embedding that the output head is tied to, and keeps the tie
    multi_adapter: bool = True  # several adapters on one base
    prompt_learning: bool = False  # left padding changes its answers: generate in batches of one length
    rewrites_base: bool = False  # writes into base weights: disabling the adapter is not the base


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    build: Callable[[Settings, Situation], "PeftConfig"]
    traits: Traits = Traits()


_PLAIN, _DROPS = Traits(), Traits(dropout=True)
_WHOLE = Traits(on_quantised_base=False)  # trains copies of whole weights
_FULL = Traits(on_quantised_base=False, tied_embeddings=True, multi_adapter=False, rewrites_base=True)
_PROMPT = Traits(mergeable=False, identity_at_start=False, prompt_learning=True)  # PEFT drops position ids
_PREFIX = Traits(mergeable=False, identity_at_start=False, checkpointing=False)  # lives in the key-value cache
_w, _p = weight_methods, prompt_methods

METHODS: dict[str, Method] = {
    "full": Method(_w.full, _FULL),
    "partial": Method(_w.partial, _WHOLE),
    "bitfit": Method(_w.bitfit, _PLAIN),
    "diff_pruning": Method(_w.diff_pruning, _WHOLE),
    "ln_tuning": Method(_w.ln_tuning, _PLAIN),
    "trainable_tokens": Method(_w.trainable_tokens, Traits(tied_embeddings=True, multi_adapter=False)),
    "shira": Method(_w.shira, _PLAIN),
    "adapter": Method(_w.adapter, Traits(mergeable=False)),
    "lora": Method(_w.lora, _DROPS),
    "adalora": Method(_w.adalora, Traits(dropout=True, multi_adapter=False)),
    "loha": Method(_w.loha, Traits(on_quantised_base=False, dropout=True)),
    "lokr": Method(_w.lokr, Traits(on_quantised_base=False, dropout=True)),
    "vera": Method(_w.vera, _DROPS),
    "randlora": Method(_w.randlora, _DROPS),
    "vblora": Method(_w.vblora, Traits(identity_at_start=False, dropout=True)),
    "miss": Method(_w.miss, _DROPS),
    "fourierft": Method(_w.fourierft, _PLAIN),
    "c3a": Method(_w.c3a, Traits(identity_at_start=False)),
    "ia3": Method(_w.ia3, _PLAIN),
    "oft": Method(_w.oft, _PLAIN),  # PEFT 0.21 has a dropout here that nothing calls: no setting of ours
    "boft": Method(_w.boft, _DROPS),
    "hra": Method(_w.hra, Traits(on_quantised_base=False)),
    "road": Method(_w.road, _PLAIN),
    "prompt_tuning": Method(_p.prompt_tuning, _PROMPT),
    "prefix_tuning": Method(_p.prefix_tuning, _PREFIX),
    "p_tuning": Method(_p.p_tuning, replace(_PROMPT, dropout=True)),
    "p_tuning_v2": Method(_p.p_tuning_v2, _PREFIX),
    "cpt": Method(_p.cpt, _PROMPT),
    "llama_adapter": Method(_p.llama_adapter, Traits(mergeable=False)),
    "library": Method(library.library, _WHOLE),
}

# Types of peft=library that differ from its row above.
_NO_MERGE = Traits(mergeable=False)
LIBRARY = {
    "beft": _NO_MERGE,  # on models without biases
    "cartridge": _PREFIX,
    "lily": Traits(mergeable=False, prompt_learning=True),  # its router averages over the tokens of a batch
    "multitask_prompt_tuning": replace(_PROMPT, multi_adapter=False),
    "poly": Traits(mergeable=False, multi_adapter=False),
    "shadow": _NO_MERGE,
    "unilora": Traits(identity_at_start=False, on_quantised_base=False),  # acts on nothing there, without a word
    **dict.fromkeys(("gralora", "hira", "pvera", "waveft"), _PLAIN),
}
PROMPT_LEARNING = frozenset(name for name, method in METHODS.items() if method.traits.prompt_learning)
CAVEATS = {"lily": "library.type=lily averages its routing over all tokens of a batch: scores depend on batch sizes"}


def traits(method: str, settings: Settings) -> Traits:
    """What the method can do at these settings."""
    known = METHODS[method].traits
    if method == "library":
        return LIBRARY.get(settings["type"].lower(), known)
    init = settings["init_lora_weights"] if method == "lora" else True
    if isinstance(init, bool) or init in ("gaussian", "eva"):
        return known
    return replace(
        known, rewrites_base=starts.rewrites(init) or init == "loftq", on_quantised_base=init in ("olora", "loftq")
    )


def prompt_learning(method: str, settings: Settings) -> bool:
    """Whether left padding changes the method's answers, so that batches must be of one length."""
    return traits(method, settings).prompt_learning


def caveat(method: str, settings: Settings) -> str | None:
    """What a reader of this method's scores must know."""
    return CAVEATS.get(settings["type"].lower()) if method == "library" else None


def changes_base(method: str, settings: Settings) -> bool:
    """Whether the method writes into base weights, so that it needs a copy of its own."""
    return traits(method, settings).rewrites_base


def situation_for(
    plan: Any,
    config: Any,
    tokenizer_path: str,
    optimizer_steps: int,
    batches: Callable[[], Iterator[Batch]] | None = None,
) -> Situation:
    """Facts of one run that its method may need; ``batches`` goes through the training rows from the first."""
    text = config.get_text_config()
    return Situation(optimizer_steps, tokenizer_path, plan.seed, text.hidden_size, text.num_hidden_layers, batches)


def attach(model: "PreTrainedModel", method: str, settings: Settings, situation: Situation) -> "PeftModel":
    """The base model with the method on it; global random state must be seeded before.

    Trainable weights are float32 whatever the base is: half-precision weights lose small updates, and
    loss scaling refuses them. On the meta device nothing is initialised; parameters can be counted.

    Raises:
        ModelFault: the method does not fit this model, e.g. target modules that match nothing.
    """
    if getattr(model, "is_quantized", False) and not traits(method, settings).on_quantised_base:
        raise ModelFault(
            f"peft={method} needs the numbers of the base weights, and these are quantised; load the base "
            "unquantised, or choose another method"
        )
    config = configure(model, method, settings, situation)
    with explained(f"peft={method}", config, model):
        if not is_meta(model):
            starts.before(model, config, situation)
        adapted = wrap(model, config)
        if not is_meta(model):
            starts.after(adapted, config, situation)
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise ModelFault(f"peft={method} has nothing to train on this model; change its target modules")
    return adapted


def configure(model: "PreTrainedModel", method: str, settings: Settings, situation: Situation) -> "PeftConfig":
    """PEFT's configuration of the method on this model, with every size settled. Raises ``ModelFault``."""
    from harness import tuners

    tuners.register()
    prefix, own = (method, settings) if method != "library" else ("library.settings", settings["settings"])
    with explained(f"peft={method}", None, model):
        config = METHODS[method].build(without_start(settings) if is_meta(model) else settings, situation)
        config.task_type = "CAUSAL_LM"
        fitting.fit(config, own, model, prefix)
    return config


def is_meta(model: "nn.Module") -> bool:
    """Whether the model has shapes but no numbers."""
    return next(model.parameters()).is_meta


def wrap(model: "PreTrainedModel", config: "PeftConfig") -> "PeftModel":
    """``get_peft_model``, with what PEFT leaves to its caller."""
    from peft import get_peft_model

    on_meta = is_meta(model)
    with quirks.around_wrapping(config, on_meta):
        adapted = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
    return quirks.after_wrapping(adapted, on_meta)


def reload(model: "PreTrainedModel", folder: "Path") -> "PeftModel":
    """The saved adapter on a fresh fork of its base, ready to generate.

    Raises:
        ModelFault: it does not fit the model.
    """
    from peft import PeftConfig, PeftModel

    from harness import tuners

    tuners.register()
    try:
        with quirks.around_wrapping(PeftConfig.from_pretrained(str(folder)), on_meta=False):
            loaded = PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelFault(f"the adapter in {folder} does not fit the base model: {error}") from error
    return quirks.with_one_task(loaded).eval()


def optimizer_for(
    method: str, settings: Settings, model: "PeftModel", learning_rate: float, weight_decay: float
) -> "Optimizer | None":
    """The optimizer that the method brings; None: AdamW, as for every other. LoRA-FA freezes A here."""
    if method != "lora":
        return None
    import torch
    from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer

    if settings["lora_fa"]:
        rank, alpha = settings["r"], settings["lora_alpha"]
        return create_lorafa_optimizer(model, rank, alpha, lr=learning_rate, weight_decay=weight_decay)
    if settings["loraplus_lr_ratio"] is not None:
        return create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=learning_rate,
            loraplus_lr_ratio=settings["loraplus_lr_ratio"],
            loraplus_weight_decay=weight_decay,
        )
    return None


def finish(model: "PeftModel") -> dict[str, Any]:
    """What follows training and precedes saving: diff pruning keeps its largest differences, if it has not yet.

    Returns:
        Figures for the record; empty for every other method.
    """
    tuner: Any = model.base_model
    name = str(model.active_adapter)
    if not hasattr(tuner, "project"):
        return {}
    done = tuner.peft_config[name].projected
    return dict((tuner.sparsity_report(name) if done else tuner.project(name)).as_dict())


def targeted(model: "PeftModel") -> list[str]:
    """Names of the base modules that the method sits on, e.g. ``layers.0.self_attn.q_proj``; empty for prompts."""
    names = getattr(model.base_model, "targeted_module_names", [])
    return sorted(set(names))


def inferred(model: "PeftModel", settings: Settings) -> dict[str, Any]:
    """Settings that the sheet left open (null) and the run settled: seeds, block sizes, widths, ..."""
    config: Any = model.peft_config[str(model.active_adapter)]
    open_ones = [name for name, value in settings.items() if value is None]
    if "settings" in settings:  # the library's sheet names no fields that it leaves open
        rules = [rule.field for rule in fitting.RULES.values()]
        open_ones = [name for name in (*SEEDS, *rules, "target_modules") if name not in settings["settings"]]
    found = {name: getattr(config, name, None) for name in open_ones}
    return {
        name: sorted(value) if isinstance(value, set) else value for name, value in found.items() if value is not None
    }


def without_start(settings: Settings) -> Settings:
    """Settings whose initialisation needs no weights: counts do not depend on it."""
    if settings.get("init_lora_weights") not in (None, True, False, "mica"):
        return {**settings, "init_lora_weights": True}
    if settings.get("prompt_tuning_init") == "SAMPLE_VOCAB":
        return {**settings, "prompt_tuning_init": "RANDOM"}
    if "settings" in settings:
        return {**settings, "settings": without_start(settings["settings"])}
    return settings


@contextmanager
def explained(who: str, config: "PeftConfig | None", model: "PreTrainedModel") -> Iterator[None]:
    """PEFT's complaints as faults of ours, with the names that would have matched."""
    try:
        yield
    except ModelFault:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, RuntimeError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())
        if "not found in the base model" in reason or "specify `target_modules`" in reason:
            names = ", ".join(_linear_names(model))
            wanted = getattr(config, "target_modules", None)
            shown = sorted(wanted) if isinstance(wanted, set) else wanted
            raise ModelFault(
                f"{who} finds none of target_modules={shown} in this model; its linear layers end in {names}"
            ) from error
        raise ModelFault(f"{who} does not fit this model: {reason}") from error


def _linear_names(model: "PreTrainedModel") -> list[str]:
    from torch.nn import Linear

    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, Linear)})
