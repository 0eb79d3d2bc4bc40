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
from harness.data.collate import collate
from harness.data.tokenize import TokenizedRow, prompt_of
from harness.methods.context import SheetValues
from harness.methods.registry import keeps_prefix, prompt_learning
from harness.models.device import base_precision
from harness.models.network import base_network
from harness.scoring.catalog import reads_answers
from harness.scoring.decode import can_decode, greedy
from harness.scoring.generate import continuations, decoding_config
from harness.scoring.losses import Passes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Differ = Callable[..., float]

CHECKED = 3  # rows: the shortest, the longest, and one between
STEPS = 3  # generated tokens: the first by the prompt alone, the others through the cache
# How far logits may lie apart, as a share of the largest: rounding alone.
EXACT = 1e-4  # float32
ROUNDED = 5e-2  # half precision, and weights in 4 or 8 bits


class Batching(Enum):
    """Which rows may share a batch."""

    refilled = "rows of any length, each replaced when it ends"
    padded = "rows of any length"
    equal = "rows of one length"
    single = "one row"


@dataclass(frozen=True)
class BatchCheck:
    """How to batch answers and losses, and what to tell the reader."""

    answers: Batching
    losses: Batching
    notes: tuple[str, ...]
    plain: bool = False  # losses need whole rows through the whole model


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
    rows = rows_to_check(examples)
    limit = tolerance(model)
    notes = []
    losses, far = Batching.padded, _loss_difference(model, rows, int(tokenizer.pad_token_id), plain=False)
    plain = far > limit
    if plain and (far := _loss_difference(model, rows, int(tokenizer.pad_token_id), plain=True)) > limit:
        losses = Batching.single
        notes.append(_note("losses depend on the other rows of a batch", far, losses))
    if not any(map(reads_answers, scoring.metrics)):
        return BatchCheck(Batching.padded, losses, tuple(notes), plain)
    answers = Batching.equal if equal_lengths else Batching.padded
    prompts = [prompt_of(row) for row in rows]
    steps = min(STEPS, scoring.generation.max_new_tokens)
    differ = _logit_differences(model, tokenizer, stops, steps)
    refills = answers is Batching.padded and _refills(model, examples, scoring.generation)
    if refills and differ(prompts, lambda: _refilled_logits(model, prompts, steps)) <= limit:
        return BatchCheck(Batching.refilled, losses, tuple(notes), plain)
    if answers is Batching.padded and (far := differ(prompts)) > limit:
        answers = Batching.equal
        notes.append(_note("answers depend on the padding of a batch", far, answers))
    if answers is Batching.equal:
        width = min(len(prompt) for prompt in prompts)
        if (far := differ([prompt[len(prompt) - width :] for prompt in prompts])) > limit:
            answers = Batching.single
            notes.append(_note("answers depend on the other rows of a batch, even of one length", far, answers))
    return BatchCheck(answers, losses, tuple(notes), plain)


def _refills(model: Any, examples: Sequence[TokenizedRow], generation: schema.Generation) -> bool:
    """Whether the rows' places may be refilled, by what is known of the model; sampling draws for a whole batch."""
    prompts = [prompt_of(row) for row in examples]
    return not generation.do_sample and can_decode(model, prompts, generation.max_new_tokens)


def _refilled_logits(model: Any, prompts: Sequence[Sequence[int]], steps: int) -> list[list[torch.Tensor]]:
    """Of each prompt, the logits (v) of its first tokens, as it is answered in places that are refilled."""
    model.eval()
    found: list[list[torch.Tensor]] = [[] for _ in prompts]

    def seen(owners: Sequence[int], logits_pv: torch.Tensor) -> None:
        for prompt, logits_v in zip(owners, logits_pv, strict=True):
            if prompt >= 0:
                found[prompt].append(logits_v.float())

    greedy(model, prompts, limit=steps, stops=(), places=len(prompts), seen=seen)
    return found


def _note(what: str, far: float, chosen: Batching) -> str:
    return f"this model's {what} (by {far:.1e} of the value, on {CHECKED} rows): scored in batches of {chosen.value}"


def rows_to_check(examples: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The shortest prompt, the longest, and one between: fewer if there are fewer rows."""
    by_length = sorted(examples, key=lambda row: row.prompt_length)
    places = sorted({0, len(by_length) // 2, len(by_length) - 1})
    return [by_length[place] for place in places]


def tolerance(model: Any) -> float:
    """How far this model's logits may lie apart, as a share of the largest, where only rounding differs."""
    return ROUNDED if _is_rounded(model) else EXACT


def _is_rounded(model: Any) -> bool:
    base = base_network(model)
    return bool(base.config.dtype in (torch.float16, torch.bfloat16) or getattr(base, "is_quantized", False))


def _loss_difference(model: Any, rows: Sequence[TokenizedRow], pad_id: int, plain: bool) -> float:
    """How far the logits that losses are computed from lie apart, alone and in one padded batch, as a share of them.

    Each row's own, because a mean over rows hides what one of them loses.

    Args:
        plain: whole rows through the whole model, in the batch as well.
    """
    if len(rows) < 2:
        return 0.0
    alone = [completion_logits(model, [row], pad_id, plain=True)[0] for row in rows]
    return largest_difference(alone, completion_logits(model, rows, pad_id, plain))


def completion_logits(model: Any, rows: Sequence[TokenizedRow], pad_id: int, plain: bool) -> list[torch.Tensor]:
    """Of each row, the logits (t, v) that predict its completion."""
    model.eval()
    with torch.no_grad(), base_precision(model):
        return Passes(model, rows, plain).completion_logits(collate(rows, pad_id, "right"))


def largest_difference(here: Sequence[torch.Tensor], there: Sequence[torch.Tensor]) -> float:
    """The largest difference of any pair, as a share of the pair's largest value."""
    return max(_apart(one, other) for one, other in zip(here, there, strict=True))


def _apart(here: torch.Tensor, there: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((here - there).abs().max() / here.abs().max().clamp(min=1e-6))


def _logit_differences(model: Any, tokenizer: "PreTrainedTokenizerBase", stops: Sequence[int], steps: int) -> "Differ":
    """A function from prompts to how far their logits alone and in one batch lie apart, as a share of the largest."""
    greedily = schema.Generation(batch_size=CHECKED, max_new_tokens=steps, do_sample=False, temperature=1.0, top_p=1.0)
    decoding = decoding_config(greedily, tokenizer, stops)
    decoding.output_logits, decoding.min_new_tokens = True, steps

    def batched(prompts: Sequence[Sequence[int]]) -> list[list[torch.Tensor]]:
        steps_bv = continuations(model, prompts, decoding).logits
        return [[logits_bv[row].float() for logits_bv in steps_bv] for row in range(len(prompts))]

    def difference(
        prompts: Sequence[Sequence[int]], together: Callable[[], list[list[torch.Tensor]]] | None = None
    ) -> float:
        if len(prompts) < 2:
            return 0.0
        model.eval()
        worst = 0.0
        for prompt, there in zip(prompts, together() if together else batched(prompts), strict=True):
            [here] = batched([prompt])
            for one, other in zip(here, there, strict=True):
                worst = max(worst, _apart(one, other))
                if one.argmax() != other.argmax():
                    break  # from here on the two read different texts
        return worst

    return difference
