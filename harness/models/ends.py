"""The tokens at which a model's answers end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.data.templates import turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTENT_SHARE = 0.1  # of outputs that hold an end; from here on it is part of the data's language


def end_ids(model: Any, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Every token that ends an answer of this model, sorted.

    The tokenizer's end of text, what the model's own generation_config names (Gemma, Qwen and Phi-3 name several), and
    the chat template's end of turn. transformers stops at the same ones; a chat model that is stopped at the first
    alone runs on into a next turn, and every method then seems to gain what merely teaches it to stop.
    """
    end = turn_end(tokenizer)
    own = _ids(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
    own = own or _ids(getattr(getattr(model, "config", None), "eos_token_id", None))
    found = {*own, *_ids(tokenizer.eos_token_id)} | ({end.token_id} if end else set())
    return tuple(sorted(found))


@dataclass(frozen=True)
class Stops:
    """Where generation stops, and what a reader must know about it."""

    ids: tuple[int, ...]
    notes: tuple[str, ...]


def stops_for(
    ends: Sequence[int], trained: int, outputs: Sequence[Sequence[int]], tokenizer: "PreTrainedTokenizerBase"
) -> Stops:
    """The ends at which generation stops: all, except those that the data's outputs use as content.

    Turn marks in function calls, for example, are no end there. An end that only few outputs hold stays one, or a
    single odd row would let every answer run on.

    Args:
        trained: the end that completions close with; generation always stops there.
        outputs: ids of the data's completions, without the end that closes them.
    """
    ids, notes = [trained], []
    for end in ends:
        holding = sum(end in output for output in outputs) if end != trained else 0
        name = tokenizer.decode([end])
        if holding and holding >= CONTENT_SHARE * len(outputs):
            notes.append(f"generation does not stop at {name}: it is content of {holding} of {len(outputs)} outputs")
            continue
        if holding:
            notes.append(f"generation stops at {name}, though {holding} of {len(outputs)} outputs go on after it")
        ids.append(end)
    return Stops(tuple(sorted(set(ids))), tuple(notes))


def _ids(value: Any) -> list[int]:
    """``eos_token_id`` as configurations write it: none, one, or several."""
    if value is None:
        return []
    return [int(each) for each in value] if isinstance(value, list | tuple) else [int(value)]
