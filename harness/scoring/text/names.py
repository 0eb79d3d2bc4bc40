"""Which of a list of names a text mentions first."""

from collections.abc import Iterable

from harness.scoring.text.normalization import NAME, has_han, normalize

NameIndex = dict[str, list[str]]


def name_index(names: Iterable[str]) -> NameIndex:
    """Names, normalized by ``NAME``, under their first character, longest first; blank ones are left out."""
    index: NameIndex = {}
    known = {normalize(name, NAME) for name in names} - {""}
    for name in sorted(known, key=lambda name: (-len(name), name)):
        index.setdefault(name[0], []).append(name)
    return index


def first_named(text: str, index: NameIndex) -> str | None:
    """The name, normalized by ``NAME``, that ``text`` mentions first; None if it mentions none.

    Leftmost, then longest: at the earliest place where a name starts, the longest that fits there. In scripts
    with spaces a name is whole words: "iron" does not occur in "environment".
    """
    text = normalize(text, NAME)
    for start, char in enumerate(text):
        for name in index.get(char, ()):
            if not text.startswith(name, start):
                continue
            after = text[start + len(name) : start + len(name) + 1]
            if not _in_word(text[start - 1 : start], char) and not _in_word(name[-1], after):
                return name
    return None


def names_target(prediction: str, target: str, index: NameIndex) -> float:
    """1.0 if the first name of ``index`` in ``prediction`` is ``target``, else 0.0."""
    return float(first_named(prediction, index) == normalize(target, NAME))


def _in_word(left: str, right: str) -> bool:
    # Both sides are letters or digits of a script that puts spaces between words: no word ends between them.
    return left.isalnum() and right.isalnum() and not has_han(left + right)
