"""Which rows may share a batch, so that the batch size changes no score.

Rows of different lengths are padded. Padding changes nothing where attention is masked and positions are counted from
the mask. It does where a method puts keys before it that a sliding window then loses, where a state runs through it
(RWKV), and where the longest row of a batch decides the scale of all positions (LongRoPE). Some are known before; a
check at the start of scoring finds the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from harness.config import schema
from harness.data.collate import collate, positions_needed
from harness.data.tokenize import TokenizedRow, prompt_of
from harness.methods.context import SheetValues
from harness.methods.registry import keeps_prefix, prompt_learning
from harness.models.device import base_precision
from harness.scoring.generate import continuations, decoding_config
from harness.scoring.losses import can_skip_logits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKED = 3  # rows: the shortest, the longest, and one between
STEPS = 3  # generated tokens: the first by the prompt alone, the others through the cache
# How far logits may lie apart, as a share of the largest: rounding alone.
EXACT = 1e-4  # float32
ROUNDED = 5e-2  # half precision, and weights in 4 or 8 bits


class Batching(Enum):
    """Which rows may share a batch."""

    padded = "rows of any length"
    equal = "rows of one length"
    single = "one row"


@dataclass(frozen=True)
class BatchCheck:
    """How to batch answers and losses, and what to tell the reader."""

    answers: Batching
    losses: Batching
    notes: tuple[str, ...]


def needs_equal_lengths(model: Any, method: str | None = None, settings: SheetValues | None = None) -> bool:
    """Whether padding is known to change the answers of this model, with this method if one is named.

    Args:
        model: the base model.
    """
    if getattr(model, "_is_stateful", False):  # transformers' own word for Mamba, RWKV and their hybrids
        return True
    if method is None or settings is None:
        return False
    if prompt_learning(method, settings):
        return True
    return keeps_prefix(method, settings) and not attends_to_everything(model.config)


def attends_to_everything(config: Any) -> bool:
    """Whether every layer sees the whole text: no sliding window, no chunks, no state."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return set(kinds) <= {"full_attention", "attention"}
    if getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
        return False
    return not any(getattr(text, name, None) for name in ("attention_window", "attention_chunk_size", "window_size"))


def check_batches(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TokenizedRow],
    scoring: schema.Scoring,
    *,
    stops: Sequence[int],
    equal_lengths: bool,
) -> BatchCheck:
    """Compare a few rows alone and in a batch, and choose batches that give each row its answer alone.

    The rows do not depend on the batch size, and what is chosen gives every row what it gets alone; so the batch size
    moves nothing. Quantized models aside, whose rounding may depend on the batch.

    Args:
        equal_lengths: known before: rows of different lengths must not share a batch.
    """
    rows = _rows_to_check(examples)
    limit = ROUNDED if _is_rounded(model) else EXACT
    notes = []
    losses, far = Batching.padded, _loss_difference(model, rows, int(tokenizer.pad_token_id))
    if far > limit:
        losses = Batching.single
        notes.append(_note("losses depend on the other rows of a batch", far, losses))
    if not scoring.metrics:
        return BatchCheck(Batching.padded, losses, tuple(notes))
    answers = Batching.equal if equal_lengths else Batching.padded
    prompts = [prompt_of(row) for row in rows]
    differ = _logit_differences(model, tokenizer, stops, min(STEPS, scoring.generation.max_new_tokens))
    if answers is Batching.padded and (far := differ(prompts)) > limit:
        answers = Batching.equal
        notes.append(_note("answers depend on the padding of a batch", far, answers))
    if answers is Batching.equal:
        width = min(len(prompt) for prompt in prompts)
        if (far := differ([prompt[len(prompt) - width :] for prompt in prompts])) > limit:
            answers = Batching.single
            notes.append(_note("answers depend on the other rows of a batch, even of one length", far, answers))
    return BatchCheck(answers, losses, tuple(notes))


def _note(what: str, far: float, chosen: Batching) -> str:
    return f"this model's {what} (by {far:.1e} of the value, on {CHECKED} rows): scored in batches of {chosen.value}"


def _rows_to_check(examples: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The shortest prompt, the longest, and one between: fewer if there are fewer rows."""
    by_length = sorted(examples, key=lambda row: row.prompt_length)
    places = sorted({0, len(by_length) // 2, len(by_length) - 1})
    return [by_length[place] for place in places]


def _is_rounded(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return bool(base.config.dtype in (torch.float16, torch.bfloat16) or getattr(base, "is_quantized", False))


def _loss_difference(model: Any, rows: Sequence[TokenizedRow], pad_id: int) -> float:
    """How far the logits that losses are computed from lie apart, alone and in one padded batch, as a share of them.

    Each row's own, because a mean over rows hides what one of them loses.
    """
    if len(rows) < 2:
        return 0.0
    model.eval()
    together = _completion_logits(model, rows, pad_id)
    alone = [_completion_logits(model, [row], pad_id)[0] for row in rows]
    return max(_apart(here, there) for here, there in zip(alone, together, strict=True))


def _completion_logits(model: Any, rows: Sequence[TokenizedRow], pad_id: int) -> list[torch.Tensor]:
    """Of each row, the logits (t, v) that predict its completion."""
    batch = collate(rows, pad_id, "right")
    needed = positions_needed(batch)
    extra = {"logits_to_keep": needed} if can_skip_logits(model) else {}
    width = batch.pop("labels").shape[1]
    device = next(model.parameters()).device
    with torch.no_grad(), base_precision(model):
        logits_btv = model(**{name: tensor.to(device) for name, tensor in batch.items()}, **extra).logits
    logits_btv, before = logits_btv[:, -needed:], width - needed
    return [
        logits_btv[at, row.prompt_length - 1 - before : len(row.input_ids) - 1 - before].float()
        for at, row in enumerate(rows)
    ]


def _apart(here: torch.Tensor, there: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((here - there).abs().max() / here.abs().max().clamp(min=1e-6))


def _logit_differences(
    model: Any, tokenizer: "PreTrainedTokenizerBase", stops: Sequence[int], steps: int
) -> Callable[[Sequence[Sequence[int]]], float]:
    """A function from prompts to how far their logits alone and in one batch lie apart, as a share of the largest."""
    greedy = schema.Generation(batch_size=CHECKED, max_new_tokens=steps, do_sample=False, temperature=1.0, top_p=1.0)
    decoding = decoding_config(greedy, tokenizer, stops)
    decoding.output_logits, decoding.min_new_tokens = True, steps

    def difference(prompts: Sequence[Sequence[int]]) -> float:
        if len(prompts) < 2:
            return 0.0
        model.eval()
        together = continuations(model, prompts, decoding)
        worst = 0.0
        for row, prompt in enumerate(prompts):
            alone = continuations(model, [prompt], decoding)
            for step, logits_bv in enumerate(alone.logits):
                worst = max(worst, _apart(logits_bv[0].float(), together.logits[step][row].float()))
                if alone.sequences[0, step] != together.sequences[row, step]:
                    break  # from here on the two read different texts
        return worst

    return difference
