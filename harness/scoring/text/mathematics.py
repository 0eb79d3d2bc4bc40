r"""The answer that a solution of a mathematical problem ends in, and whether two of them are the same.

The answer stands after the last ``####`` (GSM8K), else in the last ``\boxed{}`` (MATH). ``1,000``, ``1000``,
``$1{,}000`` and ``1000.0 dollars`` are one number. Units are left out, not converted: ``2 km`` is not ``2000 m``.
"""

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from harness.scoring.text.normalization import normalize

MARK = "####"  # GSM8K writes it before the result

# A minus after a letter, digit or bracket subtracts. Commas belong to a number where they part groups of three.
_NUMBER = re.compile(r"(?:(?<![\w)\]}])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?:(?<![\w)\]}])-)?(?<!\d)\.\d+")
_THIN = re.compile(r"(?<=\d)(?:[\u00a0\u2009\u202f]|\\[,!;: ]|\{,\})(?=\d{3}(?!\d))")  # parts groups of three, too
_CURRENCY = re.compile(r"\\?\$|[€£¥]|\\(?:pounds|euro)\b")
_MINUS = str.maketrans("\u2212\u2013\ufe63\uff0d", "----")
_BOX = re.compile(r"\\f?boxed\s*(?=\{|\S)|\\fbox\s*(?=\{)")
_SAID = re.compile(r"(?:answer is|answer:|答案是|答案为|答案[:：])\s*", re.IGNORECASE)

_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*(?:\{(-?[\d.]+)\}|(\d))\s*(?:\{([\d.]+)\}|(\d))")
_RATIO = re.compile(r"(-?[\d.]+)\s*/\s*([\d.]+)")
_POWER = re.compile(r"(-?[\d.]+)\s*(?:\\times|\\cdot|\*|×)\s*10\^\{?(-?\d+)\}?")
_SCIENTIFIC = re.compile(r"(-?\d+(?:\.\d+)?)[eE]([-+]?\d+)")
_LARGEST_POWER = 300  # of ten; what a model writes beyond it is compared as text

_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|mathrm\s*(?=\{)|limits)(?![a-zA-Z])")
_UNIT = re.compile(r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*[^{}]*\}(?:\^\{?\d\}?)?\s*$")
_WRITTEN = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\{?\s*\\circ\s*\}?|\\degree|°")
_PLAIN_UNIT = re.compile(r"(?<=\d)\s*(?:[a-zA-Z%][a-zA-Z%.]*(?:\s[a-zA-Z]+)*|[\u4e00-\u9fff]+)$")
_NAME = re.compile(r"^[a-zA-Z](?:\([a-z]\))?\s*=\s*")


def final_number(text: str) -> Decimal | None:
    r"""The number after the last ``####``, else in the last ``\boxed{}``, else the last one; None if there is none.

    After the mark and in the box it is the first number: models go on after the result.
    """
    stated = _stated(text)
    found = _NUMBER.findall(_plain(text if stated is None else stated))
    if not found:
        return None
    try:
        return Decimal((found[-1] if stated is None else found[0]).replace(",", ""))
    except InvalidOperation:
        return None


def final_answer(text: str) -> str:
    r"""What the solution states: after ``####`` or ``answer is``, in ``\boxed{}``, else its last number, else all."""
    stated = _stated(text)
    if stated is not None:
        return stated.strip()
    said = [match.end() for match in _SAID.finditer(text)]
    if said:
        return text[said[-1] :].strip().partition("\n")[0].rstrip(".。 ")
    found = _NUMBER.findall(_plain(text))
    return found[-1] if found and len(text.split()) > 1 else text.strip()


def same_answer(answer: str, reference: str) -> bool:
    """Whether the two solutions end in the same answer: as numbers if both are, else as text in one spelling."""
    return same_value(final_answer(answer), final_answer(reference))


def same_value(one: str, other: str) -> bool:
    """Whether two stated answers are the same."""
    left, right = _spelled(one), _spelled(other)
    numbers = number(left), number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return bool(left) and left == right


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, fraction or power of ten; None for any other text."""
    text = text.replace("{,}", ",")
    if _NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    try:
        if match := _FRACTION.fullmatch(text):
            sign, top, digit, bottom, last = match.groups()
            value = Fraction(top or digit) / Fraction(bottom or last)
            return -value if sign else value
        if match := _RATIO.fullmatch(text):
            return Fraction(match[1]) / Fraction(match[2])
        if (match := _POWER.fullmatch(text) or _SCIENTIFIC.fullmatch(text)) and abs(int(match[2])) <= _LARGEST_POWER:
            return Fraction(match[1]) * Fraction(10) ** int(match[2])
    except (ValueError, ZeroDivisionError):  # "1.2.3", "1/0"
        pass
    return None


def _stated(text: str) -> str | None:
    """What stands after the last mark, on its line, or in the last box; None if there is neither."""
    if MARK in text:
        return text.rpartition(MARK)[2].strip().partition("\n")[0]
    boxes = list(_BOX.finditer(text))
    return _boxed(text[boxes[-1].end() :]) if boxes else None


def _boxed(rest: str) -> str:
    """The content of the braces that ``rest`` begins with; without braces, its first word."""
    if not rest.startswith("{"):
        return rest.split()[0].rstrip("$.,") if rest.split() else ""
    depth = 0
    for place, char in enumerate(rest):
        escaped = rest[place - 1 : place] == "\\"
        depth += (char == "{" and not escaped) - (char == "}" and not escaped)
        if depth == 0:
            return rest[1:place]
    return rest[1:]  # the answer was cut


def _plain(text: str) -> str:
    """The text with its numbers in one spelling."""
    return _CURRENCY.sub("", normalize(_THIN.sub("", text.translate(_MINUS)), "nfkc")).translate(_MINUS)


def _spelled(answer: str) -> str:
    """An answer in one spelling, after the rules of MATH's own script: sizes, units, dollars, spaces, names."""
    text = _plain(answer).strip().strip("$").rstrip(".。,;")
    text = text.removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]").strip()
    text = _DEGREES.sub("", _SIZES.sub("", text)).replace("\\%", "").replace("tfrac", "frac").replace("dfrac", "frac")
    text = _UNIT.sub("", text) if _UNIT.sub("", text).strip() else text
    text = _PLAIN_UNIT.sub("", _WRITTEN.sub(r"\1", text))
    text = _NAME.sub("", text.strip()).replace("\\!", "").replace("\\,", "").replace("\\ ", "").replace("\\;", "")
    text = re.sub(r"\\(frac|sqrt)\s*(\d)\s*(\d)(?![\d}])", r"\\\1{\2}{\3}", text)
    text = re.sub(r"\\sqrt\s*(\w)(?!\w)", r"\\sqrt{\1}", text)
    text = "".join(text.split()).rstrip("%")
    return text if re.search(r"[\\^_{}]", text) else text.casefold()
