"""One answer, shown while it is written: the tokens that ``generate`` gives, one after another."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config import schema
from harness.scoring.generate import answer_text, continuations, decoding_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PARTIAL = "\ufffd"  # what decoders write for the first bytes of a character


@dataclass(frozen=True)
class Streamed:
    """An answer that was shown while it was written."""

    text: str  # as ``answer_text`` writes it
    ids: tuple[int, ...]  # without the stop
    cut: bool  # it reached ``max_new_tokens`` before an end
    stopped: bool  # by the reader, before its end
    seconds: float


def stream(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Sequence[int],
    generation: schema.Generation,
    *,
    stops: Sequence[int],
    told: Callable[[str], None],
    enough: Callable[[], bool] = lambda: False,
) -> Streamed:
    """The answer to ``prompt`` (token ids), as ``generate`` gives it.

    Args:
        stops: ids that end an answer, at least one.
        told: is told each new piece of text; the pieces make the answer, unless the decoder changed what it had
            written. What it raises ends the answer and is raised here.
        enough: asked before each token; true ends the answer.
    """
    model.eval()
    started = time.perf_counter()
    writer = _Writer(tokenizer, frozenset(stops), told, enough)
    stopped = False
    try:
        continuations(model, [prompt], decoding_config(generation, tokenizer, stops), streamer=writer)
    except _Enough:
        stopped = True
    ids = tuple(writer.ids)
    cut = not stopped and not writer.ended and len(ids) >= generation.max_new_tokens
    return Streamed(answer_text(ids, tokenizer), ids, cut, stopped, time.perf_counter() - started)


class _Enough(Exception):
    """Leaves transformers' loop."""


class _Writer:
    """Gets the ids from transformers: the prompt first, then one at a time."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        stops: frozenset[int],
        told: Callable[[str], None],
        enough: Callable[[], bool],
    ) -> None:
        self.ids: list[int] = []
        self.ended = False
        self._pieces = Pieces(tokenizer)
        self._stops, self._told, self._enough = stops, told, enough
        self._prompt_seen = False

    def put(self, value: "torch.Tensor") -> None:
        """Take the ids of the prompt, or the next one."""
        if not self._prompt_seen:
            self._prompt_seen = True
        elif not self.ended:
            self._take(int(value.flatten()[-1]))
        if self._enough():
            raise _Enough

    def _take(self, token: int) -> None:
        if token in self._stops:
            self.ended = True
            return
        self.ids.append(token)
        piece = self._pieces.after(self.ids)
        if piece:
            self._told(piece)

    def end(self) -> None:
        """Nothing is held back: white space at the end is no part of an answer."""


class Pieces:
    """The text of growing ids, piece by piece, as ``answer_text`` writes it.

    The first bytes of a character, and white space that may be the end, wait for what follows.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._shown = ""

    def after(self, ids: Sequence[int]) -> str:
        """What the last ids add."""
        text = answer_text(ids, self._tokenizer).rstrip(PARTIAL).rstrip()
        if not text.startswith(self._shown):
            return ""
        piece, self._shown = text[len(self._shown) :], text
        return piece
