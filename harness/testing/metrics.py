"""What every metric promises, checked on made-up answers: the same checks for ours and for those of others."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from harness.extensions.imports import is_import_path
from harness.scoring import custom
from harness.scoring.catalog import SCORES
from harness.scoring.compute import compute_with_rows
from harness.testing.methods import Broken

REFERENCES = [["the sky is blue"], ["42"], ["yes", "yes, it is"], ["青い"], ['{"a": 1}']]
ANSWERS = ["the sky is green", "42", "yes", "", "no"]
Columns = Mapping[str, list[Any]]
COLUMNS: Columns = {
    "instruction": ["What is it?"] * 5,
    "input": ["", "6 * 7", "", "空", ""],
    "target": ["blue", "42", "yes", "青い", "1"],
    "prompt": [f"Question {number}:" for number in range(5)],
}


def _score(path: str, answers: list[str], references: list[list[str]], columns: Columns) -> dict[str, float]:
    if is_import_path(path):
        return custom.compute(path, answers, references, columns)[0]
    return compute_with_rows([path], answers, references, columns["target"], "char")[0]


def gives_numbers(path: str) -> str:
    """Finite numbers for answers that are right, wrong, or empty."""
    right = _score(path, [texts[0] for texts in REFERENCES], REFERENCES, COLUMNS)
    _score(path, [""] * len(ANSWERS), REFERENCES, COLUMNS)
    found = _score(path, ANSWERS, REFERENCES, COLUMNS)
    if found.keys() != right.keys():
        raise Broken(
            f"it gives {', '.join(right)} for some answers and {', '.join(found)} for others; give the same always"
        )
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items())


def determinism(path: str) -> str:
    """The same answers have the same score."""
    first, second = (_score(path, ANSWERS, REFERENCES, COLUMNS) for _ in range(2))
    if first != second:
        raise Broken(f"the same answers give {first} and then {second}; seed what it draws")
    return "bit for bit"


def leaves_inputs(path: str) -> str:
    """What it is given stays as it was: other metrics get it, too."""
    answers, references, columns = copy.deepcopy((ANSWERS, REFERENCES, dict(COLUMNS)))
    _score(path, answers, references, columns)
    if (answers, references, columns) != (ANSWERS, REFERENCES, COLUMNS):
        raise Broken("it changes the lists that it is given; work on copies")
    return ""


def order_of_rows(path: str) -> str:
    """The order of the rows does not count."""
    turned = {name: values[::-1] for name, values in COLUMNS.items()}
    first = _score(path, ANSWERS, REFERENCES, COLUMNS)
    second = _score(path, ANSWERS[::-1], REFERENCES[::-1], turned)
    worst = max((abs(first[name] - second.get(name, math.inf)) for name in first), default=0.0)
    if worst > 1e-9 * max(1.0, *map(abs, first.values())):
        raise Broken(f"the same rows in another order give {second}, not {first}")
    return ""


def direction(path: str) -> str:
    """Right answers are at least as good as empty ones, in the direction that it declares."""
    right = _score(path, [texts[0] for texts in REFERENCES], REFERENCES, COLUMNS)
    empty = _score(path, [""] * len(ANSWERS), REFERENCES, COLUMNS)
    for name, value in right.items():
        better = value >= empty[name] if SCORES[name].direction == "maximize" else value <= empty[name]
        if not better:
            raise Broken(
                f"{name} is {value:.4g} for right answers and {empty[name]:.4g} for empty ones, but its direction is "
                f"{SCORES[name].direction}"
            )
    return ", ".join(f"{name}: {SCORES[name].direction}" for name in right)


CHECKS: dict[str, Callable[[str], str]] = {
    "finite numbers": gives_numbers,
    "determinism": determinism,
    "leaves its inputs": leaves_inputs,
    "order of rows": order_of_rows,
    "direction": direction,
}
