"""Faults of the base model's settings."""

from collections.abc import Iterator

from harness.config.schema import Config, ModelSource, Quantization
from harness.data.checks import own_or_one_of
from harness.errors import fraction
from harness.extensions.imports import call_faults, is_import_path, load, load_fault


def model_faults(config: Config) -> Iterator[str]:
    """Of where the base comes from, what is done to its weights, and whether the method can work on them."""
    model = config.model
    yield from _source(model.source)
    own = is_import_path(model.source)
    if model.source is not ModelSource.package and not model.path and not own:
        yield f"model.path is empty; model.source={model.source} needs it"
    if model.source is ModelSource.package and not model.packages:
        yield "model.packages is empty; model.source=package needs the distributions that carry the weights"
    if model.trust_remote_code and model.source is not ModelSource.hub and not own:
        yield f"model.trust_remote_code=true is for model.source=hub, not {model.source}; set it to false"
    yield from fraction("model.prune", model.prune)
    if model.prune and model.quantization is not Quantization.none:
        yield (
            f"model.prune={model.prune} needs unquantized base weights, not model.quantization="
            f"{model.quantization.value}; set model.prune=0, or model.quantization=none"
        )
    yield from _quantization(config)


def _source(source: str) -> Iterator[str]:
    if not is_import_path(source):
        yield from own_or_one_of("model.source", source, ModelSource, "my_pkg.models:folder")
        return
    fault = load_fault("model.source", source)
    yield from (
        [fault] if fault else call_faults("model.source", source, load("model.source", source), ("model",), ("model",))
    )


def _quantization(config: Config) -> Iterator[str]:
    """Methods that cannot work on a base in 4 or 8 bits, most because they compute with its weights."""
    kind, method = config.model.quantization, config.peft.method
    if kind is Quantization.none:
        return
    from harness.methods.registry import why_unquantized

    why = why_unquantized(method, vars(getattr(config, method)), kind.value)
    if why:
        start = f" lora.init_lora_weights={config.lora.init_lora_weights}" if method == "lora" else ""
        start = f" library.type={config.library.type}" if method == "library" else start
        yield (
            f"peft={method}{start} {why}; model.quantization={kind.value} does not go with it: set "
            "model.quantization=none, or choose another method"
        )
