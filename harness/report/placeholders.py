"""Text with words that Python does not take as names (``model.name``, ``39e5``), for Python's parser.

The languages of ``report.where`` and ``paper.expect`` are read with it: each word becomes a placeholder, Python's
parser gives the structure, and the words are looked up by their placeholder. Nothing is evaluated.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Iterator

from harness.errors import ConfigFault, brief

Fault = Callable[[str], ConfigFault]  # made of what is wrong with the text


def tokens(text: str, pattern: re.Pattern[str], fault: Fault) -> Iterator[re.Match[str]]:
    """The parts of the text.

    Raises:
        ConfigFault: some part is none of the pattern's.
    """
    place = 0
    while place < len(text):
        match = pattern.match(text, place)
        if match is None:
            raise fault(f"cannot be read at {brief(text[place:])!r}")
        yield match
        place = match.end()


def parsed(
    matches: Iterable[re.Match[str]], pythons: Collection[str], fault: Fault, otherwise: str
) -> tuple[ast.expr, list[str]]:
    """The structure of a text, and its words by the number in their placeholders.

    Args:
        matches: of a pattern with the groups ``space`` and ``word``.
        pythons: words that Python reads itself, such as ``in``.
        otherwise: what is wrong with a text that Python cannot parse.

    Raises:
        ConfigFault: Python cannot parse it.
    """
    parts: list[str] = []
    words: list[str] = []
    for match in matches:
        if match["word"] and match[0] not in pythons:
            parts.append(f" _{len(words)} ")
            words.append(match[0])
        else:
            parts.append(" " if match["space"] else f" {match[0]} ")
    try:
        return ast.parse("".join(parts).strip(), mode="eval").body, words
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise fault(otherwise) from error


def word_of(name: ast.Name, words: list[str]) -> str:
    """The word for which this placeholder stands."""
    return words[int(name.id.removeprefix("_"))]
