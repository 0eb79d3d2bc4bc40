"""The language of ``report.where``: conditions on the fields of a record.

``method in [lora, ia3] and model.name == smollm2_135m and seed < 3``. Words without quotes are fields or texts as
typed: a fingerprint such as ``39e512345678`` is text where the field holds text. Behind a field with ``==`` or ``!=``,
and in a list, a word is a value even if a field has that name: ``status == finished``. Python's own parser gives the
structure; nothing is evaluated but comparisons, ``and``, ``or`` and ``not``.
"""

import ast
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from harness.config.names import closest
from harness.errors import ConfigFault, brief
from harness.report.placeholders import parsed, tokens, word_of

EXAMPLE = '"method in [lora, ia3] and model.name == tiny and seed < 3"'

Fields = Mapping[str, Any]  # of one record, by dotted name

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<sign>==|!=|<=|>=|<|>|=|[()\[\],])
    |(?P<word>[^\s"'()\[\],<>=!]+(?:!(?!=)[^\s"'()\[\],<>=!]*)*)""",
    re.VERBOSE,
)
_LOGIC = ("and", "or", "not", "in", "is")
_CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "null": None, "none": None}
_ORDERS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Condition:
    """A parsed condition.

    Args:
        text: as typed.
        key: the setting that holds it, for messages.

    Raises:
        ConfigFault: it is not a condition.
    """

    def __init__(self, text: str, key: str = "report.where") -> None:
        self._text, self._key = text, key
        self._tree, self._words = parsed(self._tokens(), _LOGIC, self._fault, "is not a condition")
        self._check(self._tree)

    def check_fields(self, known: Collection[str]) -> None:
        """Raise ConfigFault unless each comparison names a field; ``known``: those of all records."""
        faults = dict.fromkeys(self._unknown(self._tree, frozenset(known)))
        if faults:
            raise ConfigFault("\n".join(faults))

    def fields(self, known: Collection[str]) -> list[str]:
        """The fields that it names, in its order."""
        names = [self._word(node) for node in ast.walk(self._tree) if isinstance(node, ast.Name)]
        return [name for name in dict.fromkeys(names) if name in known]

    def holds(self, fields: Fields, known: Collection[str]) -> bool:
        """Whether a record satisfies the condition.

        A field that this record lacks, but others have, is null: it is equal to nothing but null, and has no order.
        """
        return bool(self._value(self._tree, fields, known))

    def _tokens(self) -> Iterator[re.Match[str]]:
        for match in tokens(self._text, _TOKEN, self._fault):
            if match["sign"] == "=":
                raise self._fault("has a single =; write == to compare")
            yield match

    def _check(self, node: ast.expr, inside: bool = False) -> None:
        """Refuse whatever is not a condition; ``inside`` a comparison values are expected."""
        match node:
            case ast.BoolOp() if not inside:
                for part in node.values:
                    self._check(part)
            case ast.UnaryOp(op=ast.Not()) if not inside:
                self._check(node.operand)
            case ast.Compare() if not inside:
                for part in (node.left, *node.comparators):
                    self._check(part, inside=True)
            case ast.Name():
                pass
            case ast.Constant() if inside and isinstance(node.value, str):
                pass
            case ast.List() | ast.Tuple() if inside:
                for part in node.elts:
                    self._check(part, inside=True)
            case _:
                raise self._fault("has a part that is not a comparison")

    def _unknown(self, node: ast.expr, known: frozenset[str]) -> list[str]:
        """Comparisons without a field, each as a message."""
        match node:
            case ast.BoolOp():
                return [fault for part in node.values for fault in self._unknown(part, known)]
            case ast.UnaryOp():
                return self._unknown(node.operand, known)
            case ast.Compare():
                operands = [node.left, *node.comparators]
                words = [self._word(part) for part in operands if isinstance(part, ast.Name)]
                if any(word in known for word in words):
                    return []
                named = next((word for word in words if not _is_value(word)), None)
                return [self._no_field(named, known)]
            case ast.Name() if self._word(node) not in known:
                return [self._no_field(self._word(node), known)]
        return []

    def _no_field(self, word: str | None, known: Collection[str]) -> str:
        if word is None:
            return f"{self._key}={brief(self._text)} has a comparison without a field; write, for example, {EXAMPLE}"
        close = near_fields(word, known)
        remedy = (
            f"did you mean {' or '.join(close)}?" if close else f"such as method, seed, model.name, loss: {EXAMPLE}"
        )
        return f"{self._key}: no record has a field {brief(word)}; {remedy}"

    def _value(self, node: ast.expr, fields: Fields, known: Collection[str]) -> Any:
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(self._value(part, fields, known) for part in node.values)
            case ast.BoolOp():
                return any(self._value(part, fields, known) for part in node.values)
            case ast.UnaryOp():
                return not self._value(node.operand, fields, known)
            case ast.Compare():
                left = self._operand(node.left, fields, known)
                for sign, before, part in zip(node.ops, (node.left, *node.comparators), node.comparators, strict=False):
                    is_value = isinstance(sign, ast.Eq | ast.NotEq) and self._is_field(before, known)
                    right = self._operand(part, fields, frozenset() if is_value else known)
                    if not _compare(sign, left, right):
                        return False
                    left = right
                return True
            case _:
                return fields.get(self._word(node))

    def _operand(self, node: ast.expr, fields: Fields, known: Collection[str]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple():
                return [self._operand(part, fields, frozenset()) for part in node.elts]
        word = self._word(node)
        return fields.get(word) if word in known else Typed(word)

    def _is_field(self, node: ast.expr, known: Collection[str]) -> bool:
        return isinstance(node, ast.Name) and self._word(node) in known

    def _word(self, node: ast.expr) -> str:
        assert isinstance(node, ast.Name)
        return word_of(node, self._words)

    def _fault(self, what: str) -> ConfigFault:
        return ConfigFault(f"{self._key}={brief(self._text)} {what}; write, for example, {self._key}={EXAMPLE}")


class Typed(str):
    """A word as typed, which is a number where a number stands beside it."""

    __slots__ = ()


def near_fields(word: str, known: Collection[str]) -> list[str]:
    """Up to three fields that a misspelled name may mean, the likeliest first."""
    leaf = word.rpartition(".")[2]
    ending = sorted((name for name in known if name.rpartition(".")[2] == leaf), key=len)
    return list(dict.fromkeys([*closest(word, known, 0.7), *ending]))[:3]


def _is_value(word: str) -> bool:
    return word.lower() in _CONSTANTS or _number(word) is not None


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _compare(sign: ast.cmpop, left: Any, right: Any) -> bool:
    match sign:
        case ast.In():
            return _contains(right, left)
        case ast.NotIn():
            return not _contains(right, left)
        case ast.Eq() | ast.Is():
            return _equal(left, right)
        case ast.NotEq() | ast.IsNot():
            return not _equal(left, right)
    left, right = _as_like(left, right), _as_like(right, left)
    if isinstance(left, Typed) and isinstance(right, Typed):
        left, right = _number(left), _number(right)
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return _ORDERS[type(sign)](left, right)


def _contains(container: Any, item: Any) -> bool:
    if isinstance(container, list | tuple):
        return any(_equal(each, item) for each in container)
    if isinstance(container, Mapping):
        return str(item) in container
    return isinstance(container, str) and str(item) in container


def _equal(left: Any, right: Any) -> bool:
    left, right = _as_like(left, right), _as_like(right, left)
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _as_like(value: Any, other: Any) -> Any:
    """A typed word as the kind of value that stands on the other side."""
    if not isinstance(value, Typed) or isinstance(other, str):
        return value
    if isinstance(other, bool) or other is None:
        return _CONSTANTS.get(value.lower(), value)
    number = _number(value) if isinstance(other, int | float) else None
    return value if number is None else number
