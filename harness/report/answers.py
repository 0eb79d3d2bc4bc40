"""Answers before and after training, from the predictions that runs leave, and which of them are right."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.plan.spec import digest
from harness.report.model import Run
from harness.scoring.text.mathematics import final_number
from harness.scoring.text.normalization import normalize

log = logging.getLogger(__name__)

Right = Callable[[str, tuple[str, ...]], bool]  # an answer, and the references of its row


@dataclass(frozen=True)
class Answers:
    """The answers of one run, in the order of the scored rows."""

    prompts: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def row_set(self) -> str:
        """Digest of prompts and references; equal digests are the same rows in the same order."""
        return digest([self.prompts, self.references])


def read_answers(file: Path) -> Answers | None:
    """The answers in a run's file; None with a warning if it cannot be read."""
    prompts, references, before, after = [], [], [], []
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                row = json.loads(line)
                prompts.append(str(row["prompt"]))
                references.append(tuple(map(str, row.get("references") or [row["reference"]])))
                before.append(str(row["before"]))
                after.append(str(row["after"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); its answers are left out", file, error)
        return None
    return Answers(tuple(prompts), tuple(references), tuple(before), tuple(after))


def judge_of(run: Run) -> tuple[str, Right]:
    """What decides whether an answer of this run is right, by its name in the catalog of scores."""
    return ("final_number", same_number) if "final_number" in run.after else ("exact_match", same_text)


def same_text(answer: str, references: tuple[str, ...]) -> bool:
    """As ``exact_match``: equal to a reference after normalization."""
    return _normal(answer) in {_normal(each) for each in references}


def same_number(answer: str, references: tuple[str, ...]) -> bool:
    """As ``final_number``: it ends in the number of a reference."""
    found = final_number(answer)
    return found is not None and found in {final_number(each) for each in references}


def rights(answers: Sequence[str], references: Sequence[tuple[str, ...]], right: Right) -> list[bool]:
    """For each row, whether its answer is right."""
    return [right(answer, expected) for answer, expected in zip(answers, references, strict=True)]


@lru_cache(maxsize=20_000)  # many runs answer the same rows, often with the same words
def _normal(text: str) -> str:
    return normalize(text)
