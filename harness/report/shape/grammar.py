"""The language of ``paper.expect``: what shape a paper's results have, as rules that runs can be held to.

    monotone(loss, lora.r)                                      better with every rank, or as good
    within(best_rate(lora) / best_rate(full), 5, 20)            a number lies between two others
    best(loss, full) < best(loss, lora)                         one number is below another
    first(loss) != q_only                                       which arm leads; last: which one is behind all others

Numbers: ``best_rate(ARM)``, ``best(METRIC, ARM)`` at the arm's best rate, ``gap(METRIC, ARM, ARM)``, ``spread(METRIC)``
over arms, ``span(METRIC, AXIS)``, ``sd(METRIC, ARM)`` over seeds, and arithmetic with them. Rules: comparisons,
``within``, ``monotone``, ``rises``, ``falls``, ``flat``. An arm may be followed by conditions: ``best(loss, lora,
lora.r == highest)``. Words keep their dots because Python's parser sees a placeholder for each; nothing is evaluated.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import ConfigFault, brief
from harness.report.placeholders import parsed, tokens, word_of

EXAMPLE = '"within(best_rate(lora) / best_rate(full), 5, 20)"'
HIGHEST, LOWEST = "highest", "lowest"  # of the values that an axis has among the runs of an arm

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(?![\w.])
    |(?P<sign>==|!=|<=|>=|[-+*/<>()\[\],])
    |(?P<word>[^\W\d][\w.]*)""",
    re.VERBOSE,
)
_OPERATORS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_ORDERS: Mapping[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_PARSERS_DEPTH = 40  # nested parts, beyond which a text is not a rule that somebody wrote


@dataclass(frozen=True)
class Selection:
    """The runs of one arm, or of all (``arm`` is None), that satisfy all conditions."""

    arm: str | None
    where: tuple[tuple[str, Any], ...] = ()  # field and value, which may be ``highest`` or ``lowest``

    def __str__(self) -> str:
        return ", ".join([self.arm or "all", *(f"{field} == {value}" for field, value in self.where)])


@dataclass(frozen=True)
class Constant:
    value: float


@dataclass(frozen=True)
class BestRate:
    """The learning rate at the minimum of a parabola in its logarithm."""

    of: Selection


@dataclass(frozen=True)
class Best:
    """Mean of a score over seeds, at the rate with the lowest validation loss."""

    metric: str
    of: Selection


@dataclass(frozen=True)
class Gap:
    """How much worse the first arm is than the second, each at its best rate; positive: worse."""

    metric: str
    one: Selection
    other: Selection


@dataclass(frozen=True)
class Spread:
    """From the best arm to the worst: each at its own best rate, or all at that of one of them."""

    metric: str
    rate_of: Selection | None


@dataclass(frozen=True)
class Span:
    """From the lowest to the highest value of a score along an axis, at each point's best rate."""

    metric: str
    axis: str
    of: Selection


@dataclass(frozen=True)
class Deviation:
    """Standard deviation of a score over seeds, at the arm's best rate."""

    metric: str
    of: Selection


@dataclass(frozen=True)
class Arithmetic:
    sign: str
    left: "Number"
    right: "Number"


Number = Constant | BestRate | Best | Gap | Spread | Span | Deviation | Arithmetic


@dataclass(frozen=True)
class Within:
    number: Number
    low: float
    high: float


@dataclass(frozen=True)
class Order:
    """``left < right`` or ``left > right``."""

    sign: str
    left: Number
    right: Number


TrendKind = Literal["monotone", "rises", "falls"]


@dataclass(frozen=True)
class Trend:
    """A score, or a gap, along an axis: monotone gets better, rises gets larger, falls smaller; equal steps allowed."""

    kind: TrendKind
    value: "str | Gap"
    axis: str
    of: Selection


@dataclass(frozen=True)
class Flat:
    """All points along an axis lie within a margin of each other."""

    metric: str
    axis: str
    margin: float
    of: Selection


@dataclass(frozen=True)
class Place:
    """The arm that leads, or that is behind all others, is one of these; with ``negated``, none of these."""

    which: Literal["first", "last"]
    metric: str
    arms: tuple[str, ...]
    negated: bool


Rule = Within | Order | Trend | Flat | Place


def parse_rule(text: str, key: str = "paper.expect") -> Rule:
    """The rule that the text says.

    Raises:
        ConfigFault: it is not a rule.
    """
    return _Parser(text, key).rule()


class _Parser:
    def __init__(self, text: str, key: str) -> None:
        self._text, self._key = text, key
        matches = tokens(text, _TOKEN, self._fault)
        self._tree, self._words = parsed(matches, ("in", "not"), self._fault, "is not a rule")
        self._numbers: dict[str, Callable[[list[ast.expr]], Number]] = {
            "best_rate": lambda parts: BestRate(self._selection(parts, "best_rate")),
            "best": lambda parts: Best(self._first(parts, "best"), self._selection(parts[1:], "best")),
            "gap": self._gap,
            "spread": self._spread,
            "span": self._span,
            "sd": lambda parts: Deviation(self._first(parts, "sd"), self._selection(parts[1:], "sd")),
        }

    def rule(self) -> Rule:
        match self._tree:
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                return self._comparison(left, sign, right)
            case ast.Call():
                return self._call_rule(*self._call(self._tree))
        raise self._fault("compares nothing; a rule is a comparison, or within, monotone, rises, falls or flat")

    def _comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Rule:
        name, parts = self._call(left) if isinstance(left, ast.Call) else ("", [])
        if name in ("first", "last"):
            if len(parts) != 1:
                raise self._fault(f"gives {name} {len(parts)} arguments; write {name}(loss)")
            if not isinstance(sign, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                raise self._fault(f"compares {name} with an order; write {name}(loss) == lora, != or in [lora, full]")
            several = isinstance(sign, ast.In | ast.NotIn)
            if several and not isinstance(right, ast.List):
                raise self._fault("has no list behind in; write in [lora, full]")
            arms = tuple(map(self._word, right.elts if several and isinstance(right, ast.List) else [right]))
            if not arms:
                raise self._fault("has an empty list; name an arm")
            which: Literal["first", "last"] = "first" if name == "first" else "last"
            return Place(which, self._word(parts[0]), arms, isinstance(sign, ast.NotEq | ast.NotIn))
        if type(sign) not in _ORDERS:
            raise self._fault("asks whether two measured numbers are equal; write within(a - b, -0.01, 0.01)")
        return Order(_ORDERS[type(sign)][0], self._number(left), self._number(right))

    def _call_rule(self, name: str, parts: list[ast.expr]) -> Rule:
        match name, len(parts):
            case "within", 3:
                low, high = self._constant(parts[1]), self._constant(parts[2])
                if low >= high:
                    raise self._fault(f"has an empty range: {low:g} is not below {high:g}")
                return Within(self._number(parts[0]), low, high)
            case ("monotone" | "rises" | "falls") as kind, count if count >= 2:
                value: str | Gap = self._trend_value(parts[0])
                if isinstance(value, Gap) and kind == "monotone":
                    raise self._fault("asks of a gap to get better; write rises(gap(...), axis) or falls(...)")
                if isinstance(value, Gap) and count > 2:
                    raise self._fault("restricts a gap, which names its arms itself; leave out what follows the axis")
                trends: Mapping[str, TrendKind] = {"monotone": "monotone", "rises": "rises", "falls": "falls"}
                return Trend(trends[kind], value, self._word(parts[1]), self._selection(parts[2:], kind, optional=True))
            case "flat", count if count >= 3:
                margin = self._constant(parts[2])
                if margin <= 0:
                    raise self._fault(f"has the margin {margin:g}; it must be above 0")
                where = self._selection(parts[3:], "flat", optional=True)
                return Flat(self._word(parts[0]), self._word(parts[1]), margin, where)
        known = {"within": "within(number, low, high)", "flat": "flat(loss, lora.r, 0.02)"}
        known |= {each: f"{each}(loss, lora.r)" for each in ("monotone", "rises", "falls")}
        if name in known:
            raise self._fault(f"gives {name} {len(parts)} arguments; write {known[name]}")
        if name in (*self._numbers, "first", "last"):
            raise self._fault(f"compares {name}(...) with nothing")
        raise self._fault(f"has an unknown rule {name}; rules: {', '.join(known)}, and comparisons")

    def _trend_value(self, node: ast.expr) -> "str | Gap":
        if isinstance(node, ast.Call):
            number = self._number(node)
            if isinstance(number, Gap):
                return number
            raise self._fault("has a trend of something that is neither a score nor a gap")
        return self._word(node)

    def _number(self, node: ast.expr, depth: int = 0) -> Number:
        if depth > _PARSERS_DEPTH:
            raise self._fault("is nested too deeply")
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return Constant(float(value))
            case ast.UnaryOp(op=ast.USub()):
                return Arithmetic("-", Constant(0.0), self._number(node.operand, depth + 1))
            case ast.BinOp() if type(node.op) in _OPERATORS:
                left, right = self._number(node.left, depth + 1), self._number(node.right, depth + 1)
                return Arithmetic(_OPERATORS[type(node.op)], left, right)
            case ast.Call():
                name, parts = self._call(node)
                if name not in self._numbers:
                    raise self._fault(f"has an unknown number {name}; numbers: {', '.join(self._numbers)}")
                return self._numbers[name](parts)
        raise self._fault("has a part that is not a number")

    def _gap(self, parts: list[ast.expr]) -> Number:
        if len(parts) != 3:
            raise self._fault(f"gives gap {len(parts)} arguments; write gap(loss, lora, full)")
        return Gap(self._word(parts[0]), Selection(self._word(parts[1])), Selection(self._word(parts[2])))

    def _spread(self, parts: list[ast.expr]) -> Number:
        if len(parts) not in (1, 2):
            raise self._fault(f"gives spread {len(parts)} arguments; write spread(loss), or spread(loss, lora)")
        return Spread(self._word(parts[0]), Selection(self._word(parts[1])) if parts[1:] else None)

    def _span(self, parts: list[ast.expr]) -> Number:
        if len(parts) < 2:
            raise self._fault("gives span 1 argument; write span(loss, lora.r)")
        return Span(self._word(parts[0]), self._word(parts[1]), self._selection(parts[2:], "span", optional=True))

    def _selection(self, parts: list[ast.expr], name: str, optional: bool = False) -> Selection:
        """An arm and conditions; with ``optional``, the arm may be left out."""
        rest = list(parts)
        arm = self._word(rest.pop(0)) if rest and isinstance(rest[0], ast.Name) else None
        if arm is None and not optional:
            raise self._fault(f"does not say which arm {name} is about; write {name}(..., lora)")
        return Selection(arm, tuple(map(self._condition, rest)))

    def _condition(self, node: ast.expr) -> tuple[str, Any]:
        match node:
            case ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[ast.Name() | ast.Constant()]):
                [value] = node.comparators
                known = {"true": True, "false": False, "null": None}
                if isinstance(value, ast.Constant):
                    return self._word(node.left), value.value
                word = self._word(value)
                return self._word(node.left), known.get(word, word)
        raise self._fault("has a condition that is not of the form lora.r == 8")

    def _call(self, node: ast.Call) -> tuple[str, list[ast.expr]]:
        if node.keywords or any(isinstance(part, ast.Starred) for part in node.args):
            raise self._fault("has an argument that is not a word, a number or a condition")
        return self._word(node.func), list(node.args)

    def _first(self, parts: list[ast.expr], name: str) -> str:
        if not parts:
            raise self._fault(f"gives {name} no arguments; write {name}(loss, lora)")
        return self._word(parts[0])

    def _constant(self, node: ast.expr) -> float:
        sign = 1.0
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, node = -1.0, node.operand
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return sign * float(node.value)
        raise self._fault("has a limit or a margin that is not a plain number")

    def _word(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return word_of(node, self._words)
        raise self._fault("has something else in a place where it needs a name")

    def _fault(self, what: str) -> ConfigFault:
        return ConfigFault(f"{self._key}: {brief(self._text)} {what}; a rule is, for example, {EXAMPLE}")


def numbers_of(rule: Rule) -> list[Number]:
    """The numbers of a rule and all that they are made of."""
    match rule:
        case Within():
            todo: list[Number] = [rule.number]
        case Order():
            todo = [rule.left, rule.right]
        case Trend(value=Gap() as gap):
            todo = [gap]
        case _:
            todo = []
    for each in todo:
        if isinstance(each, Arithmetic):
            todo += [each.left, each.right]
    return todo


def selections_of(rule: Rule) -> list[Selection]:
    """The selections that a rule names."""
    found = [rule.of] if isinstance(rule, Trend | Flat) else []
    for each in numbers_of(rule):
        match each:
            case BestRate() | Best() | Span() | Deviation():
                found.append(each.of)
            case Gap():
                found += [each.one, each.other]
            case Spread(rate_of=Selection() as of):
                found.append(of)
    return found


def arms_of(rule: Rule) -> tuple[str, ...]:
    """The arms that a rule names, each once."""
    named = rule.arms if isinstance(rule, Place) else ()
    return tuple(dict.fromkeys([*named, *(each.arm for each in selections_of(rule) if each.arm is not None)]))


def metrics_of(rule: Rule) -> tuple[str, ...]:
    """The scores that a rule is about, each once."""
    own = [rule.metric] if isinstance(rule, Flat | Place) else []
    own += [rule.value] if isinstance(rule, Trend) and isinstance(rule.value, str) else []
    inner = [each.metric for each in numbers_of(rule) if isinstance(each, Best | Gap | Spread | Span | Deviation)]
    return tuple(dict.fromkeys([*own, *inner]))
