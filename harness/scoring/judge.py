"""A second model that grades answers: the metric ``judge``.

Nothing is generated and parsed. The judge reads a prompt with the question, a reference and the answer; each grade is
as probable as its text after that prompt, and an answer's score is the mean grade under these probabilities (Liu et al.
2023, G-Eval, section 2). The same judge grades the answers before and after training. It is loaded when the answers are
there, and let go afterwards.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.schema import Judge
from harness.data.messages import Message
from harness.data.rows import Row
from harness.data.tokenize import option_ids
from harness.scoring.choices import continuation_logprobs
from harness.scoring.judging import judging_model

if TYPE_CHECKING:
    from harness.models.base import Base

PLACES = ("question", "reference", "answer")  # in braces in the prompt


@dataclass(frozen=True)
class Grades:
    """The score of each answer (percent), and how it was made."""

    rows: list[float]
    signature: str

    @property
    def value(self) -> float:
        """Their mean."""
        return math.fsum(self.rows) / len(self.rows)


def grade(judge: Judge, rows: Sequence[Row], references: Sequence[Sequence[str]], answers: Sequence[str]) -> Grades:
    """The grade of each answer to its row's question; of several references, all are shown to the judge.

    Raises:
        ModelFault: the judge cannot be loaded.
    """
    from harness.models.base import load_base

    base = load_base(judging_model(judge))
    texts = [
        filled(judge.prompt, row, texts, answer) for row, texts, answer in zip(rows, references, answers, strict=True)
    ]
    weights = _weights(base, judge, texts)
    last = len(judge.grades) - 1
    scores = [100.0 * math.fsum(place * share for place, share in enumerate(shares)) / last for shares in weights]
    prompt = hashlib.sha256(judge.prompt.encode()).hexdigest()[:8]
    signature = (
        f"judge:{judge.model}|template:{judge.template}|grades:{len(judge.grades)}|prompt:{prompt}|mean-of-grades"
    )
    return Grades(scores, signature)


def filled(prompt: str, row: Row, references: Sequence[str], answer: str) -> str:
    """The prompt with its places filled; what the texts themselves hold in braces stays."""
    question = f"{row.instruction}\n{row.input}" if row.input else row.instruction
    values = dict(zip(PLACES, (question, "\n".join(references), answer), strict=True))
    parts = [prompt]
    for place, value in values.items():
        parts = [piece for part in parts for piece in _between(part, f"{{{place}}}", value)]
    return "".join(parts)


class _Text(str):
    """A value that was put in, in which nothing is replaced."""


def _between(part: str, place: str, value: str) -> list[str]:
    if isinstance(part, _Text):
        return [part]
    pieces: list[str] = []
    for number, piece in enumerate(part.split(place)):
        pieces += [_Text(value), piece] if number else [piece]
    return pieces


def _weights(base: "Base", judge: Judge, texts: Sequence[str]) -> list[list[float]]:
    """Of each prompt, the share of each grade."""
    tokenizer: Any = base.tokenizer
    asked = [
        Row(
            number=number,
            source="scoring.judge",
            instruction=text,
            input="",
            output=judge.grades[0],
            messages=(Message("user", text), Message("assistant", judge.grades[0])),
            target=None,
            options=tuple(judge.grades),
        )
        for number, text in enumerate(texts, start=1)
    ]
    pairs = [(prompt, ids) for prompt, options in option_ids(asked, judge.template, tokenizer) for ids in options]
    found = continuation_logprobs(base.model, pairs, int(tokenizer.pad_token_id), batch_size=judge.batch_size)
    size = len(judge.grades)
    shares = []
    for start in range(0, len(found), size):
        logprobs = found[start : start + size]
        total = [math.exp(each - max(logprobs)) for each in logprobs]
        shares.append([each / math.fsum(total) for each in total])
    return shares
