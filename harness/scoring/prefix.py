"""The start that all prompts share, read once; and whether a model's layers see the whole text."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from harness.models.network import base_network
from harness.scoring.kv_cache import SlotCache

SHORTEST = 4  # tokens; fewer are not worth a pass of their own

# Methods that put something of their own before or beside the text's keys, or look at all rows of a batch.
NOT_ROW_BY_ROW = ("ADAPTION_PROMPT", "CARTRIDGE", "POLY", "SHADOW")


def shared_prefix(rows: Sequence[Sequence[int]], at_most: int) -> int:
    """How many first ids all rows have in common, at most so many; 0 if that is not worth a pass of its own."""
    if len(rows) < 2:
        return 0
    first, last = min(map(tuple, rows)), max(map(tuple, rows))  # all others lie between them
    common = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    length = min(common, at_most)
    return length if length >= SHORTEST else 0


def reads_in_parts(model: Any, longest: int) -> bool:
    """Whether the model gives the same logits if it reads a text in parts, with padding between them.

    That takes a plain transformers model whose attention sees all of the text, up to ``longest`` tokens, and positions
    that each token has by itself; and no adapter that keeps something in the cache.
    """
    from transformers import GenerationMixin, PreTrainedModel

    base = base_network(model)
    if not isinstance(base, PreTrainedModel) or not isinstance(base, GenerationMixin):
        return False
    if hasattr(model, "peft_config") and base is not model:
        config = model.peft_config[str(model.active_adapter)]
        kind = str(getattr(config.peft_type, "value", config.peft_type)).upper()
        if config.is_prompt_learning or kind in NOT_ROW_BY_ROW:
            return False
    if not type(base).__module__.startswith("transformers.models.") or getattr(base, "_is_stateful", False):
        return False
    known = inspect.signature(base.forward).parameters
    if base.config.is_encoder_decoder or not {"past_key_values", "position_ids", "attention_mask"} <= set(known):
        return False
    return _positions_are_fixed(base.config) and sees(base.config, longest)


def sees(config: Any, length: int) -> bool:
    """Whether every layer sees all of a text of so many tokens: no shorter window, no chunks, no state."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if not kinds <= {"full_attention", "attention", "sliding_attention"}:
        return False
    if any(getattr(text, name, None) for name in ("attention_window", "attention_chunk_size", "window_size")):
        return False
    windowed = "sliding_attention" in kinds if kinds else getattr(text, "use_sliding_window", True)
    window = getattr(text, "sliding_window", None)
    return not windowed or not window or length <= window


def _positions_are_fixed(config: Any) -> bool:
    """Whether a token's position is encoded alike in a short and in a long text."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope.get("rope_type")] + [each.get("rope_type") for each in rope.values() if isinstance(each, dict)]
    return not {"longrope", "dynamic"} & {str(kind) for kind in kinds}


def read_prefix(model: Any, ids: Sequence[int]) -> SlotCache:
    """Keys and values of these tokens, as one row."""
    cache = SlotCache()
    device = next(model.parameters()).device
    row = torch.tensor([list(ids)], device=device)
    keep = {"logits_to_keep": 1} if keeps_last_logits(model) else {}
    model(input_ids=row, attention_mask=torch.ones_like(row), past_key_values=cache, use_cache=True, **keep)
    return cache


def keeps_last_logits(model: Any) -> bool:
    """Whether the model can compute the logits of the last positions alone."""
    base = base_network(model)
    return "logits_to_keep" in inspect.signature(base.forward).parameters
