"""Requests to the page of stage=serve: what is asked, checked field by field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from harness.errors import first_line

LARGEST = 1 << 20  # bytes of a request
TURNS = 1000
LONGEST_ANSWER = 100_000
DECODING = ("max_new_tokens", "do_sample", "temperature", "top_p")


class Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Question:
    """A checked request for an answer."""

    speaker: str  # a key, or ``base``
    manner: str  # key of the run whose prompt and decoding it is asked with
    turns: tuple[str, ...]
    instruction: str
    seed: int
    generation: Mapping[str, Any]


def read_question(body: bytes) -> Question:
    """The request, checked. Raises Refused, naming the field."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the request is not JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request is not an object")
    turns = content.get("turns")
    if not isinstance(turns, list) or len(turns) % 2 == 0 or len(turns) > TURNS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"turns: an odd number of texts, at most {TURNS}, the last by the user")
    generation = content.get("generation", {})
    if not isinstance(generation, dict) or set(generation) - set(DECODING):
        raise Refused(HTTPStatus.BAD_REQUEST, f"generation: an object with {', '.join(DECODING)}")
    question = Question(
        speaker=_text(content, "speaker"),
        manner=_text(content, "manner"),
        turns=tuple(_text({f"turns[{at}]": turn}, f"turns[{at}]") for at, turn in enumerate(turns)),
        instruction=_text({"instruction": "", **content}, "instruction"),
        seed=int(_number({"seed": 0, **content}, "seed", 0, 2**63 - 1, whole=True)),
        generation={name: _decoding(generation, name) for name in generation},
    )
    if not question.turns[-1].strip():
        raise Refused(HTTPStatus.BAD_REQUEST, "turns: the last one is empty")
    return question


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a text is missing")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a pair
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: holds half a character ({first_line(error)})") from error
    return value


def _decoding(generation: Mapping[str, Any], name: str) -> Any:
    if name == "do_sample":
        if not isinstance(generation[name], bool):
            raise Refused(HTTPStatus.BAD_REQUEST, "do_sample: true or false")
        return generation[name]
    if name == "max_new_tokens":
        return int(_number(generation, name, 1, LONGEST_ANSWER, whole=True))
    return float(_number(generation, name, 0.01, 1.0 if name == "top_p" else 100.0))


def _number(content: Mapping[str, Any], name: str, low: float, high: float, whole: bool = False) -> float:
    value = content[name]
    is_number = isinstance(value, int) if whole else isinstance(value, int | float)
    if is_number and not isinstance(value, bool) and low <= value <= high:
        return value
    raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a {'whole ' if whole else ''}number from {low} to {high}")
