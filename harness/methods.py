"""The comparison on one page: every method, how it is built and what it can do.

To add a method: one function in ``weight_methods`` or ``prompt_methods``, one line in ``METHODS``, one sheet
(``conf/peft/knobs/<method>.yaml`` and its dataclass in ``sheets``), named in ``conf/config.yaml``,
``schema.Config`` and ``conf/peft/<method>.yaml``. ``attach`` is the same for all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import capabilities as _t
from harness import fitting, library, quantized, quirks, starts
from harness import prompt_methods as _p
from harness import weight_methods as _w
from harness.capabilities import Traits
from harness.errors import ModelFault
from harness.schema import Quantization
from harness.situation import SEEDS, Batch, Settings, Situation, for_counting

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig, PeftModel
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

__all__ = ["METHODS", "Situation", "Traits", "attach", "for_counting", "optimizer_for", "situation_for"]


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    build: Callable[[Settings, Situation], "PeftConfig"]
    traits: Traits


_LINEAR, _LINEAR_DROPS = Traits(conv1d=False), Traits(conv1d=False, dropout=True)

METHODS: dict[str, Method] = {
    "full": Method(_w.full, _t.FULL),
    "partial": Method(_w.partial, _t.WHOLE),
    "bitfit": Method(_w.bitfit, _t.PLAIN),
    "diff_pruning": Method(_w.diff_pruning, _t.WHOLE),
    "ln_tuning": Method(_w.ln_tuning, _t.PLAIN),
    "trainable_tokens": Method(_w.trainable_tokens, Traits(tied_embeddings=True, multi_adapter=False)),
    "shira": Method(_w.shira, _LINEAR),
    "adapter": Method(_w.adapter, _t.NO_MERGE),
    "lora": Method(_w.lora, _t.DROPS),
    "adalora": Method(_w.adalora, Traits(dropout=True, multi_adapter=False)),
    "loha": Method(_w.loha, _t.LYCORIS),
    "lokr": Method(_w.lokr, _t.LYCORIS),
    "vera": Method(_w.vera, _t.DROPS),
    "randlora": Method(_w.randlora, _t.DROPS),
    "vblora": Method(_w.vblora, Traits(identity_at_start=False, dropout=True)),
    "miss": Method(_w.miss, _LINEAR_DROPS),
    "fourierft": Method(_w.fourierft, _t.PLAIN),
    "c3a": Method(_w.c3a, Traits(identity_at_start=False, conv1d=False)),
    "ia3": Method(_w.ia3, _t.PLAIN),
    "oft": Method(_w.oft, _LINEAR),  # PEFT 0.21 has a dropout here that nothing calls: no setting of ours
    "boft": Method(_w.boft, _LINEAR_DROPS),
    "hra": Method(_w.hra, _t.LINEAR),
    "road": Method(_w.road, _LINEAR),
    "prompt_tuning": Method(_p.prompt_tuning, _t.PROMPT),
    "prefix_tuning": Method(_p.prefix_tuning, _t.PREFIX),
    "p_tuning": Method(_p.p_tuning, replace(_t.PROMPT, dropout=True)),
    "p_tuning_v2": Method(_p.p_tuning_v2, _t.PREFIX),
    "cpt": Method(_p.cpt, _t.PROMPT),
    "llama_adapter": Method(_p.llama_adapter, _t.NO_MERGE),
    "library": Method(library.library, _t.LINEAR),
}

PROMPT_LEARNING = frozenset(name for name, method in METHODS.items() if method.traits.prompt_learning)


def traits(method: str, settings: Settings) -> Traits:
    """What the method can do at these settings."""
    if method == "library":
        kind, chosen = settings["type"].lower(), settings["settings"]
        if kind in _t.LIBRARY:
            return _t.LIBRARY[kind]
        sheet = {"adaption_prompt": "llama_adapter"}.get(kind, kind)
        return traits(sheet, {"init_lora_weights": True} | chosen) if sheet in METHODS else METHODS["library"].traits
    known = METHODS[method].traits
    init = settings["init_lora_weights"] if method == "lora" else True
    return known if isinstance(init, bool) else _t.of_start(known, init)


def unquantised(method: str, settings: Settings, kind: Quantization) -> str | None:
    """Why the method cannot work over a base that is stored like this; None where it can."""
    can = traits(method, settings)
    fits = {Quantization.none: True, Quantization.nf4: can.nf4, Quantization.int8: can.int8}[kind]
    return None if fits else can.why_unquantised


def prompt_learning(method: str, settings: Settings) -> bool:
    """Whether left padding changes the method's answers, so that batches must be of one length."""
    return traits(method, settings).prompt_learning


def caveat(method: str, settings: Settings) -> str | None:
    """What a reader of this method's scores must know."""
    return _t.CAVEATS.get(settings["type"].lower()) if method == "library" else None


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
    kind = quantized.kind(model)
    why = unquantised(method, settings, kind)
    if why:
        raise ModelFault(
            f"peft={method} {why}; load the base unquantised, or choose another method than on {kind.value}"
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
        if not traits(method, settings).conv1d:
            fitting.refuse_conv1d(
                config, model, f"peft={method}" if method != "library" else f"library.type={settings['type']}"
            )
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
    except (ValueError, RuntimeError, KeyError, AssertionError) as error:  # the last: torch without CUDA, for LoftQ
        raise ModelFault(f"the adapter in {folder} does not fit the base model: {error}") from error
    return quirks.settled(loaded).eval()


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
    except ImportError as error:  # PEFT's own words name the package and the command that installs it
        raise ModelFault(f"{who} lacks a package: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, RuntimeError, AssertionError) as error:
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
