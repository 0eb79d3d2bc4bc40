"""Parameter counts by formula, from the model's ``config.json`` alone: without torch, transformers and peft.

Importing those takes seconds, and a plan of six cells none of them. A formula counts only what it knows exactly: the
architectures in ``ARCHITECTURES`` unquantized, and the methods in ``FORMULAS`` at settings that it understands. For
everything else there is no answer here, and ``parameters`` builds the model on the meta device. So is everything that
might be a fault: a name that matches nothing, a rank that is too large. Tests hold every formula to the built model.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.config.schema import Model, ModelSource, Quantization
from harness.estimate import limits
from harness.models import sources as model_sources
from harness.models.counts import Counts
from harness.plan.spec import Plan

ALL_LINEAR = "all-linear"

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """A linear layer in every block."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False


@dataclass(frozen=True)
class Shape:
    """A decoder whose blocks are alike."""

    kind: str  # model_type
    blocks: int
    hidden: int
    keys: int  # width of the keys of all heads, and of their values
    heads_fit: bool  # whether the heads' width is the hidden size over their number, as PEFT takes for granted
    vocabulary: int
    tied: bool
    layers: tuple[Layer, ...]  # of one block

    @property
    def total(self) -> int:
        """All parameters; tied embeddings count once."""
        linear = sum(each.inputs * each.outputs + each.bias * each.outputs for each in self.layers)
        norms = 2 * self.blocks + 1
        return self.blocks * linear + norms * self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)


def count(plan: Plan) -> Counts | None:
    """What the plan trains; None if that takes the model itself to tell, or to say what is wrong."""
    model = plan.model
    usual = model.source in (ModelSource.folder, ModelSource.hub) and model.config_only is None
    formula = FORMULAS.get(plan.method)
    if formula is None or not usual or model.quantization is not Quantization.none or model.trust_remote_code:
        return None
    folder = model_sources.locate_config(model)
    config = _read(folder / "config.json")
    shape = _shape(config)
    if shape is None or not _tokenizer_fits(model, shape.vocabulary):
        return None
    if list(limits.position_faults(plan, _as_config(config))):
        return None
    found = formula(dict(plan.settings), shape)
    if found is None or found[0] < 1:
        return None
    trained, held = found
    return Counts(trained, shape.total + held)


def _as_config(config: Mapping[str, Any]) -> Any:
    """The configuration as ``limits`` reads one of transformers."""
    found = SimpleNamespace(**config)
    found.get_text_config = lambda decoder=False: found
    return found


# --- architectures ----------------------------------------------------------------------------------------


def _shape(config: Mapping[str, Any]) -> Shape | None:
    """None for an architecture that is not known here, or a configuration that leaves sizes to transformers."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES or any(config.get(name) is None for name in SIZES):
        return None
    hidden, inner, heads = (int(config[name]) for name in ("hidden_size", "intermediate_size", "num_attention_heads"))
    width = int(config.get("head_dim") or hidden // heads)
    keys = width * int(config["num_key_value_heads"])
    qkv, out, mlp = ARCHITECTURES[kind](config)
    return Shape(
        kind=kind,
        blocks=int(config["num_hidden_layers"]),
        hidden=hidden,
        keys=keys,
        heads_fit=width * heads == hidden,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config["tie_word_embeddings"]),
        layers=(
            Layer("q_proj", hidden, width * heads, qkv),
            Layer("k_proj", hidden, keys, qkv),
            Layer("v_proj", hidden, keys, qkv),
            Layer("o_proj", width * heads, hidden, out),
            Layer("gate_proj", hidden, inner, mlp),
            Layer("up_proj", hidden, inner, mlp),
            Layer("down_proj", inner, hidden, mlp),
        ),
    )


def _llama_biases(config: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    attention, mlp = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    return attention, attention, mlp


SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "tie_word_embeddings"),
)

# By model_type: whether queries, keys and values have biases; the output of attention; the MLP.
ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], tuple[bool, bool, bool]]] = {
    "llama": _llama_biases,
    "qwen2": lambda config: (True, False, False),
}


# PEFT's TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.
IA3_BESIDE_VALUES = {"llama": "k_proj", "qwen2": "q_proj"}


@cache
def _read(file: Path) -> Mapping[str, Any]:
    """A JSON file that a process reads once; {} if it cannot be read as an object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tokenizer_fits(model: Model, rows: int) -> bool:
    """Whether every id of the tokenizer surely has an embedding."""
    folder = model_sources.locate_tokenizer(model)
    if folder is None:
        return True  # there is none yet: nothing can be told before the weights are there
    content = _read(folder / "tokenizer.json")
    vocabulary = (content.get("model") or {}).get("vocab")
    if not isinstance(vocabulary, dict):
        return False
    added = [int(token.get("id", rows)) for token in content.get("added_tokens") or ()]
    return max([*vocabulary.values(), *added], default=rows) < rows


# --- methods: parameters that are trained, and those that are held besides the base's ---------------------


def _targets(settings: Settings, shape: Shape, idle: tuple[str, ...] = ()) -> list[Layer] | None:
    """The adapted layers of one block; None if the settings say more than that.

    Args:
        idle: settings that must be unset.
    """
    if any(settings.get(name) for name in (*PLACES, *idle)) or settings.get("bias", "none") != "none":
        return None
    wanted = settings.get("target_modules")
    if wanted == ALL_LINEAR:
        return list(shape.layers)
    if not isinstance(wanted, list | tuple) or not wanted:
        return None
    known = {layer.name: layer for layer in shape.layers}
    return [known[name] for name in dict.fromkeys(wanted)] if all(name in known for name in wanted) else None


PLACES = ("exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern")

Found = tuple[int, int] | None


def _per_layer(count: Callable[[Layer], int], layers: list[Layer] | None, shape: Shape) -> Found:
    if layers is None:
        return None
    total = shape.blocks * sum(map(count, layers))
    return total, total


def _lora(settings: Settings, shape: Shape) -> Found:
    rank = settings["r"]
    usual = settings["init_lora_weights"] in (True, False, "gaussian") and not settings["use_dora"]
    layers = _targets(settings, shape, ("rank_pattern", "alpha_pattern"))
    if not usual or rank > shape.hidden or layers is None:
        return None
    held = shape.blocks * sum(rank * (layer.inputs + layer.outputs) for layer in layers)
    b_alone = shape.blocks * sum(rank * layer.outputs for layer in layers)
    return (b_alone if settings["lora_fa"] else held), held


def _adalora(settings: Settings, shape: Shape) -> Found:
    rank, layers = settings["init_r"], _targets(settings, shape)
    if rank > shape.hidden or layers is None:
        return None
    trained = shape.blocks * sum(rank * (layer.inputs + layer.outputs + 1) for layer in layers)
    return trained, trained + shape.blocks * len(layers)  # each layer holds the number of its ranks


def _loha(settings: Settings, shape: Shape) -> Found:
    return _per_layer(
        lambda layer: 2 * settings["r"] * (layer.inputs + layer.outputs), _targets(settings, shape), shape
    )


def _vera(settings: Settings, shape: Shape) -> Found:
    return _per_layer(lambda layer: settings["r"] + layer.outputs, _targets(settings, shape), shape)


def _hra(settings: Settings, shape: Shape) -> Found:
    return _per_layer(lambda layer: settings["r"] * layer.inputs, _targets(settings, shape), shape)


def _ia3(settings: Settings, shape: Shape) -> Found:
    """Scales of two outputs in attention, by architecture, and of what enters the MLP's last layer."""
    if any(settings.get(name) for name in (*PLACES, "target_modules", "feedforward_modules")):
        return None
    by_name = {layer.name: layer for layer in shape.layers}
    first = by_name[IA3_BESIDE_VALUES[shape.kind]]
    total = shape.blocks * (first.outputs + by_name["v_proj"].outputs + by_name["down_proj"].inputs)
    return total, total


def _full(settings: Settings, shape: Shape) -> Found:
    return (shape.total, 0) if not settings["keep_base"] else None


def _prompt_tuning(settings: Settings, shape: Shape) -> Found:
    total = settings["num_virtual_tokens"] * shape.hidden
    return (total, total) if settings["prompt_tuning_init"] != "TEXT" else None


def _p_tuning_v2(settings: Settings, shape: Shape) -> Found:
    total = settings["num_virtual_tokens"] * 2 * shape.blocks * shape.keys
    return (total, total) if shape.heads_fit else None


FORMULAS: dict[str, Callable[[Settings, Shape], Found]] = {
    "lora": _lora,
    "adalora": _adalora,
    "loha": _loha,
    "vera": _vera,
    "hra": _hra,
    "ia3": _ia3,
    "full": _full,
    "prompt_tuning": _prompt_tuning,
    "p_tuning_v2": _p_tuning_v2,
}
