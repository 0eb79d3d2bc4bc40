"""Multiple choice: the log-probability of each option of a row after its prompt, and without one.

Nothing is generated. An option's tokens are those that it would have as the answer, without the end token, as in
lm-evaluation-harness. Options that differ in their last token only, such as letters, share one pass.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.data.collate import by_length, collate
from harness.data.tokenize import TokenizedRow
from harness.models.device import base_precision
from harness.models.network import base_network
from harness.scoring.choice_scores import Weighed
from harness.scoring.losses import Passes, Told, untold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_BYTES = 256 << 20  # of the logits of one batch, float32


def weigh(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TokenizedRow],
    *,
    batch_size: int,
    unconditional: bool,
    plain: bool = False,
    told: Told = untold,
) -> list[Weighed]:
    """The options of each row with their log-probabilities (nats, summed over tokens).

    Args:
        batch_size: contexts per forward pass; moves nothing but rounding.
        unconditional: also without the prompt, after the token that begins a text.
        plain: pass whole rows through the whole model, for one that gives other logits if it computes less.
        told: is told how many options are weighed.
    """
    prompts = [row.input_ids[: row.prompt_length] for row in examples]
    asked = [(prompt, ids) for prompt, row in zip(prompts, examples, strict=True) for ids in row.options]
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    alone = [((int(first),), ids) for row in examples for ids in row.options] if unconditional else []
    pad_id = int(tokenizer.pad_token_id)
    conditional, bare = (  # apart, because prompts often begin alike, and are then read once
        iter(continuation_logprobs(model, pairs, pad_id, batch_size=batch_size, plain=plain, told=told))
        for pairs in (asked, alone)
    )
    return [
        Weighed(
            texts=row.row.options,
            tokens=tuple(map(len, row.options)),
            logprobs=tuple(next(conditional) for _ in row.options),
            unconditional=tuple(next(bare) for _ in row.options) if unconditional else None,
            right=frozenset(row.row.options.index(text) for text in row.row.all_references),
        )
        for row in examples
    ]


def continuation_logprobs(
    model: Any,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    pad_id: int,
    *,
    batch_size: int,
    plain: bool = False,
    told: Told = untold,
) -> list[float]:
    """Log-probability (nats) of the second ids of each pair after the first, both at least one."""
    contexts: dict[tuple[int, ...], list[int]] = {}  # by all ids but the last: which pairs
    for at, (before, after) in enumerate(pairs):
        contexts.setdefault((*before, *after[:-1]), []).append(at)
    rows: list[tuple[TokenizedRow, list[int]]] = []
    for ids, members in contexts.items():
        starts: dict[int, list[int]] = {}  # a context can be prompt and option of one pair, and prompt alone of another
        for at in members:
            starts.setdefault(len(pairs[at][0]), []).append(at)
        for start, same in starts.items():
            rows.append((TokenizedRow((*ids, pairs[same[0]][1][-1]), start, _NO_ROW, ""), same))
    results = [0.0] * len(pairs)
    if not pairs:
        return results
    longest = max(len(row.input_ids) - row.prompt_length for row, _ in rows)
    fitting = MOST_BYTES // (4 * longest * int(base_network(model).config.get_text_config().vocab_size))
    model.eval()
    done = 0
    with torch.no_grad(), base_precision(model):
        passes = Passes(model, [row for row, _ in rows], plain)
        for batch in by_length([len(row.input_ids) for row, _ in rows], max(1, min(batch_size, fitting))):
            logits = passes.completion_logits(collate([rows[index][0] for index in batch], pad_id, "right"))
            for index, logits_tv in zip(batch, logits, strict=True):
                row, members = rows[index]
                logprobs_tv = logits_tv.log_softmax(dim=-1)
                given = list(row.input_ids[row.prompt_length : -1])
                known = sum(float(logprobs_tv[place, number]) for place, number in enumerate(given))
                for at in members:
                    results[at] = known + float(logprobs_tv[-1, pairs[at][1][-1]])
                done += len(members)
            told("option", done, len(pairs))
    return results


_NO_ROW: Any = None  # passes read ids alone
