"""Settings that the machine or the hub decides, as values: device, precision, attention, and the commit on the hub.

A plan says what runs. With ``auto`` in it, a run in float32 on a laptop and one in bfloat16 on a GPU would be one
experiment, and an explicit value that is what ``auto`` means would make a second one. What cannot be known without
loading the model stays open.
"""

import json
import re
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from harness.config.schema import Config, Data, DType, Model, ModelSource, Strategy
from harness.data import hub as data_hub
from harness.data.sources import locate_data
from harness.errors import HarnessError
from harness.models import hub as model_hub
from harness.models import sources as model_sources
from harness.runtime.accelerator import accelerator


def resolved_model(config: Config, here: bool) -> Model:
    """The plan's model.

    Args:
        here: the plan is run on this machine; on another one ``auto`` may mean something else.
    """
    model = _without_usual_attention(_pinned(config.model))
    found = accelerator() if here else None
    if found is None:
        return model
    device = model.device
    if model.device_map is None:
        several = config.trainer.parallel.strategy is not Strategy.none
        same = {"auto", "cuda"} if several else {"auto", "cuda", "cuda:0"}
        device = found.kind if device == "auto" or (found.kind == "cuda" and device in same) else device
    kind = found.kind if device == "auto" else device.partition(":")[0]
    dtype = model.dtype
    if dtype is DType.auto:
        half = DType.bfloat16 if found.bfloat16 else DType.float16
        dtype = half if kind == "cuda" else DType.float32
    return replace(model, device=device, dtype=dtype)


def resolved_data(data: Data) -> Data:
    """The plan's data, a set on the hub at the commit that it has now."""
    if locate_data(data.path) is not None:
        return data
    commit = data_hub.commit_of(data.path, data.revision)
    return replace(data, revision=commit) if commit else data


def _pinned(model: Model) -> Model:
    """A hub model at the commit that the hub names now, or else the cached copy has; unchanged if neither is there."""
    if model.source is not ModelSource.hub or not model.path or model.config_only is not None:
        return model
    try:
        commit = model_hub.resolved_commit(model.path, model.revision)
    except HarnessError:
        return model  # the check of the model says it, with the cell that it is in
    return replace(model, revision=commit) if commit else model


def _without_usual_attention(model: Model) -> Model:
    """``attn_implementation`` is null if it names what transformers takes anyway."""
    if model.attn_implementation is None or model.config_only is not None:
        return model
    usual = _usual_attention(model)
    return replace(model, attn_implementation=None) if model.attn_implementation == usual else model


def _usual_attention(model: Model) -> str | None:
    """What transformers takes for this architecture, read from its source; None if that cannot be told."""
    try:
        folder = model_sources.locate_tokenizer(model)  # where config.json is, too
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] if folder else None
    except (HarnessError, OSError, ValueError, KeyError, TypeError):
        return None
    return attention_of(str(kind)) if kind else None


@cache
def attention_of(model_type: str) -> str | None:
    """``sdpa`` if the architecture's module says that it supports it, ``eager`` if it says nothing."""
    spec = find_spec("transformers")
    name = model_type.replace("-", "_").removesuffix("_text")
    if spec is None or not spec.submodule_search_locations or not re.fullmatch(r"\w+", name):
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / "models" / name / f"modeling_{name}.py"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return None
    said = set(re.findall(r"^    _supports_sdpa = (True|False)$", text, re.MULTILINE))
    if len(said) > 1:
        return None
    return "sdpa" if said == {"True"} else "eager"
