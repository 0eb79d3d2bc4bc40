"""Any method on a base model: PEFT's configuration made and checked, the model wrapped, a saved adapter loaded."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.adapters import block_sizes, initializers, names, peft_compat
from harness.errors import ModelFault
from harness.methods.context import SEEDS, Batch, BuildContext, SheetValues
from harness.methods.registry import METHODS, hooks_of, traits_of, why_unquantized
from harness.models import quantization

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel


def build_context(
    plan: Any,
    config: Any,
    tokenizer_path: str,
    optimizer_steps: int,
    batches: Callable[[], Iterator[Batch]] | None = None,
) -> BuildContext:
    """Facts about one run that its method may need; each call of ``batches`` starts again at the first training row."""
    text = config.get_text_config()
    return BuildContext(
        optimizer_steps,
        tokenizer_path,
        plan.seed,
        text.hidden_size,
        text.num_hidden_layers,
        batches,
        getattr(text, "vocab_size", None),
    )


def attach(model: "PreTrainedModel", method: str, settings: SheetValues, context: BuildContext) -> "PeftModel":
    """The base model with the method on it. Seed the global random state first.

    Trainable weights are float32 on any base: half-precision weights lose small updates, and loss scaling does not
    accept them. On the meta device nothing is initialized, but parameters can be counted.

    Raises:
        ModelFault: the method does not fit this model, e.g. target modules that match nothing.
    """
    kind = quantization.kind(model)
    why = why_unquantized(method, settings, kind.value)
    if why:
        raise ModelFault(
            f"peft={method} {why}; load the base unquantized, or choose another method than on {kind.value}"
        )
    config = peft_config_for(model, method, settings, context)
    with explaining_peft_errors(f"peft={method}", config, model):
        if not is_meta(model):
            initializers.initialize_before(model, config, context)
        adapted = wrap_model(model, config)
        if not is_meta(model):
            initializers.initialize_after(adapted, config, context)
            hooks_of(method, settings).initialize(adapted, settings)
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise ModelFault(f"peft={method} has nothing to train on this model; change its target modules")
    return adapted


def peft_config_for(
    model: "PreTrainedModel", method: str, settings: SheetValues, context: BuildContext
) -> "PeftConfig":
    """PEFT's configuration of the method on this model, with all block sizes set.

    Raises:
        ModelFault: the settings do not fit this model.
    """
    from harness import tuners

    tuners.register()
    prefix, own = (method, settings) if method != "library" else ("library.settings", settings["settings"])
    with explaining_peft_errors(f"peft={method}", None, model):
        config = METHODS[method].build(without_data_init(settings) if is_meta(model) else settings, context)
        config.task_type = "CAUSAL_LM"
        names.refuse_strange_names(config, own, model, prefix)
        block_sizes.fit_sizes(config, own, model, prefix)
        if not traits_of(method, settings).conv1d:
            block_sizes.refuse_conv1d(
                config, model, f"peft={method}" if method != "library" else f"library.type={settings['type']}"
            )
    return config


def is_meta(model: "nn.Module") -> bool:
    """Whether the model has shapes but no weights."""
    return next(model.parameters()).is_meta


def wrap_model(model: "PreTrainedModel", config: "PeftConfig") -> "PeftModel":
    """``get_peft_model``, plus what PEFT leaves to its caller (``peft_compat``)."""
    from peft import get_peft_model

    on_meta = is_meta(model)
    with peft_compat.around_wrapping(config, on_meta):
        adapted = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
    return peft_compat.after_wrapping(adapted, on_meta)


def load_peft_model(model: "PreTrainedModel", folder: "Path") -> "PeftModel":
    """The saved adapter on a fresh fork of its base, ready to generate.

    Raises:
        ModelFault: the adapter does not fit the model.
    """
    from peft import PeftConfig, PeftModel

    from harness import tuners

    tuners.register()
    try:
        with warnings.catch_warnings():
            if peft_compat.unknown_fields(folder):  # unset ones: PEFT leaves them out with a warning
                warnings.filterwarnings("ignore", message="Unexpected keyword arguments")
            with peft_compat.around_wrapping(PeftConfig.from_pretrained(str(folder)), on_meta=False):
                loaded = PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, KeyError, AssertionError) as error:  # the last: torch without CUDA, for LoftQ
        raise ModelFault(f"the adapter in {folder} does not fit the base model: {error}") from error
    return peft_compat.fix_calls(loaded).eval()


def targeted(model: "PeftModel") -> list[str]:
    """Names of the adapted base modules, e.g. ``layers.0.self_attn.q_proj``; empty for soft prompts."""
    names = getattr(model.base_model, "targeted_module_names", [])
    return sorted(set(names))


def inferred(model: "PeftModel", settings: SheetValues) -> dict[str, Any]:
    """Settings that the sheet left open (null) and the run determined: seeds, block sizes, widths, ..."""
    config: Any = model.peft_config[str(model.active_adapter)]
    unset = [name for name, value in settings.items() if value is None]
    if "settings" in settings:  # the library's sheet does not list the fields that it leaves open
        rules = [rule.field for rule in block_sizes.RULES.values()]
        unset = [name for name in (*SEEDS, *rules, "target_modules") if name not in settings["settings"]]
    found = {name: getattr(config, name, None) for name in unset}
    return {
        name: sorted(value) if isinstance(value, set) else value for name, value in found.items() if value is not None
    }


def without_data_init(settings: SheetValues) -> SheetValues:
    """The settings with an initialization that needs no weights; parameter counts do not depend on it."""
    if settings.get("init_lora_weights") not in (None, True, False, "mica"):
        return {**settings, "init_lora_weights": True}
    if settings.get("prompt_tuning_init") in ("SAMPLE_VOCAB", "TEXT"):
        return {**settings, "prompt_tuning_init": "RANDOM"}
    if "settings" in settings:
        return {**settings, "settings": without_data_init(settings["settings"])}
    return settings


@contextmanager
def explaining_peft_errors(who: str, config: "PeftConfig | None", model: "PreTrainedModel") -> Iterator[None]:
    """Turn PEFT's errors into ``ModelFault``, with the layer names that would match."""
    try:
        yield
    except ModelFault:
        raise
    except ImportError as error:  # PEFT's message names the package and how to install it
        raise ModelFault(f"{who} lacks a package: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        if "not found in the base model" in reason or "specify `target_modules`" in reason:
            wanted = getattr(config, "target_modules", None)
            if config is not None and wanted is None:
                prefix = who.partition("=")[2] if who.startswith("peft=") else who
                prefix = "library.settings" if prefix == "library" else prefix
                raise ModelFault(f"{who} {names.no_default(config, model, prefix)}") from error
            shown = sorted(wanted) if isinstance(wanted, set) else wanted
            raise ModelFault(
                f"{who}: no layer of this model matches target_modules={shown}; its linear layers end in "
                f"{', '.join(_linear_names(model))}"
            ) from error
        raise ModelFault(f"{who} does not fit this model: {reason}") from error


def _linear_names(model: "PreTrainedModel") -> list[str]:
    from torch.nn import Linear

    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, Linear)})
