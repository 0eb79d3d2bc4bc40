"""Published files that are not rows yet: SNIPS's utterances by intent, and Chinese medical text tagged by character.

Each parser gives rows with the fields ``input`` and ``output``; what to do with them is ``data.instruction``.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from harness.data.json_rows import BrokenRow, RawRow, json_rows, parse_json, why_broken
from harness.data.unreadable import Unreadable, decoded

_LATIN = re.compile("[\udc80-\udcff]")

_HALVES = re.compile(b"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")

TAGGED = (".train", ".dev", ".test", ".bio", ".txt")  # endings of files that are tagged by character


def snips(content: bytes) -> Iterator[RawRow]:
    """One file of github.com/sonos/nlu-benchmark, ``{intent: [{"data": [{"text", "entity"?}]}]}``, as rows.

    ``output`` is JSON with the intent and its slots in the order of the utterance; a slot that is filled several times
    holds a list. One file mixes UTF-8 and Latin-1: a byte that is not UTF-8 is read as Latin-1, and the
    two halves of an emoji, each written as if it were a character, as that emoji.
    """
    content = _HALVES.sub(_joined, content)
    text = content.decode("utf-8-sig", errors="surrogateescape")
    try:
        whole = parse_json(_LATIN.sub(lambda found: chr(ord(found[0]) - 0xDC00), text))
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"{why_broken(fault)}; copy or download it again") from fault
    if not isinstance(whole, dict) or not all(isinstance(value, list) for value in whole.values()):
        raise Unreadable(
            'it is not {intent: [{"data": [{"text": ..., "entity": ...}]}]}, the form of data.format=snips; '
            "for rows of your own use data=alpaca"
        )
    number = 0
    for intent, utterances in whole.items():
        for utterance in utterances:
            number += 1
            yield number, _utterance(intent, utterance)


def _joined(halves: re.Match[bytes]) -> bytes:
    return halves[0].decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16").encode()


def _utterance(intent: str, utterance: Any) -> dict[str, str] | BrokenRow:
    parts = utterance.get("data") if isinstance(utterance, dict) else None
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and isinstance(part.get("text"), str) and isinstance(part.get("entity", ""), str)
        for part in parts
    ):
        return BrokenRow(f"an utterance of {intent[:40]} is not a list of parts with text and entity")
    slots: dict[str, Any] = {}
    for part in parts:
        if "entity" in part:
            slots.setdefault(part["entity"], []).append(part["text"].strip())
    filled = {name: values[0] if len(values) == 1 else values for name, values in slots.items()}
    answer = json.dumps({"intent": intent, "slots": filled}, ensure_ascii=False)
    return {"input": "".join(part["text"] for part in parts).strip(), "output": answer}


def tcm_tags(content: bytes) -> Iterator[RawRow]:
    """Lines of a character and its tag (B-, I- or O), sentences divided by blank lines, as rows.

    ``input`` is the sentence. ``output`` lists its entities in the wording of the published instruction files.
    """
    sentence: list[tuple[str, str]] = []
    number = 0
    for line in [*decoded(content).split("\n"), ""]:
        line = line.rstrip("\r")
        if line.strip():
            character, _, tag = line.rpartition(" ") if " " in line else line.rpartition("\t")
            sentence.append((character, tag))
        elif sentence:
            number += 1
            yield number, _tagged_row(sentence)
            sentence = []


def _tagged_row(sentence: list[tuple[str, str]]) -> dict[str, str] | BrokenRow:
    entities: list[tuple[str, str]] = []
    before = "O"
    for character, tag in sentence:
        mark, _, kind = tag.partition("-")
        if not character or mark not in ("B", "I", "O") or (mark == "O") != (not kind):
            return BrokenRow(f"the tag {tag[:40]!r} is not O, B-type or I-type behind one character and a blank")
        if mark == "B" or (mark == "I" and before != kind):
            entities.append((kind, character))
        elif mark == "I":
            entities[-1] = (kind, entities[-1][1] + character)
        before = kind or "O"
    lines = [f"{kind}实体：{text}" for kind, text in entities]
    answer = "\n".join(["上述句子中的实体包含：", *lines]) if lines else "上述句子中没有实体"
    return {"input": "".join(character for character, _ in sentence), "output": answer}


def tcm_instructions(content: bytes) -> Iterator[RawRow]:
    """Rows of the published instruction files: ``input``, which is a whole prompt, and ``target``.

    Line breaks are written as a backslash and an n there.
    """
    for number, value in json_rows(decoded(content)):
        if isinstance(value, dict) and isinstance(value.get("input"), str) and "target" in value:
            yield number, {"instruction": value["input"].replace("\\n", "\n"), "output": value["target"]}
        else:
            yield number, value if isinstance(value, BrokenRow) else BrokenRow("it has no `input` and `target`")
