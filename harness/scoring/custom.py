"""Metrics of the user's own, by import path: ``scoring.metrics=[exact_match,my_pkg.metrics:politeness]``.

    from harness.scoring.custom import metric

    @metric(direction="maximize", unit="percent", decimals=1)
    def politeness(predictions, references, **columns):
        return 100 * sum("please" in text for text in predictions) / len(predictions)

A metric is such a function, or a module of ``evaluate`` (its class, or what ``evaluate.load`` returned). It returns a
number; or one for each row, whose mean is the score; or a dict of numbers, each a score named ``politeness_<key>``.
The score is named after the function. What else it takes by name are lists of one value per row (``COLUMNS``, and the
columns of ``data.columns.keep``).
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import ConfigFault, RunFault, first_line
from harness.extensions import imports
from harness.extensions.sources import code_of
from harness.scoring.catalog import BUILT_IN, SCORES, Aggregation, Direction, Score, Unit, definition, learn

if TYPE_CHECKING:
    from harness.data.tokenize import TokenizedRow

KEY = "scoring.metrics"
COLUMNS = ("instruction", "input", "target", "prompt")  # of every row; of conversations, the first two are as in alpaca
TRIED = 16  # rows on which a metric is tried before training

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declaration:
    """What ``metric`` says about a function."""

    direction: Direction | None = None  # None: nobody said it; higher counts as better, and the record says so
    unit: Unit = "ratio"
    decimals: int = 3
    description: str = ""
    scores: Mapping[str, Direction] = field(default_factory=dict)  # of a function that returns a dict, by key


def metric(
    *,
    direction: Direction = "maximize",
    unit: Unit = "ratio",
    decimals: int = 3,
    description: str = "",
    scores: Mapping[str, Direction] | None = None,
) -> Callable[[F], F]:
    """Declare a function as a metric.

    Args:
        direction: which way is better.
        unit: percent (0 to 100), or ratio for a plain number.
        decimals: shown for values below 100.
        description: what it measures; "": the first line of the function's docstring.
        scores: of a function that returns a dict, the direction of each key.

    Raises:
        ValueError: a direction or unit is unknown.
    """
    found = Declaration(direction, unit, decimals, description, dict(scores or {}))
    for each in (direction, *found.scores.values()):
        _score("metric", found, each)

    def declared(function: F) -> F:
        function.harness_metric = found  # type: ignore[attr-defined]
        return function

    return declared


@dataclass(frozen=True)
class Custom:
    """A metric of the user's own."""

    path: str
    call: Callable[..., Any]
    declaration: Declaration
    is_module: bool  # of evaluate

    @property
    def name(self) -> str:
        """Of its score, and the start of the names of several."""
        return self.path.partition(":")[2]

    def score(self, key: str | None = None, rows: bool = False) -> Score:
        """The row of the catalog for its value, or for that of one key."""
        name = self.name if key in (None, self.name) else f"{self.name}_{key}"
        direction = self.declaration.scores.get(key or "", self.declaration.direction or "maximize")
        return _score(name, self.declaration, direction, "mean over rows" if rows else "corpus", self.path)


def _score(
    name: str, declared: Declaration, direction: Direction, aggregation: Aggregation = "corpus", path: str = ""
) -> Score:
    return Score(
        name=name,
        description=declared.description or f"{path}, a metric of your own",
        direction=direction,
        unit=declared.unit,
        aggregation=aggregation,
        decimals=declared.decimals,
        needs="references",
    )


@cache
def resolve(path: str) -> Custom:
    """The metric that an import path names.

    Raises:
        ConfigFault: it cannot be imported, or is neither a function nor a module of evaluate.
    """
    value = imports.load(KEY, path)
    declared = getattr(value, "harness_metric", Declaration())
    if _is_module(value):
        return Custom(path, _computing(value), declared, True)
    if not callable(value) or isinstance(value, type):
        raise ConfigFault(
            f"{KEY}={path} is {imports.shown(value)}; name a function (predictions, references, **columns) -> float, "
            "or a module of evaluate"
        )
    return Custom(path, value, declared, False)


def _is_module(value: Any) -> bool:
    """Whether it is a metric of ``evaluate``, or its class."""
    kinds = (value if isinstance(value, type) else type(value)).__mro__
    return any(each.__module__.partition(".")[0] == "evaluate" for each in kinds)


def _computing(module: Any) -> Callable[..., Any]:
    """How a metric of ``evaluate`` is called; one that takes one reference per row gets it as text."""

    def compute(predictions: list[str], references: list[list[str]]) -> Any:
        with tempfile.TemporaryDirectory() as scratch:
            made = module(cache_dir=scratch, keep_in_memory=True) if isinstance(module, type) else module
            forms = made.features if isinstance(made.features, list) else [made.features]
            several = any(type(form.get("references")).__name__ in ("List", "Sequence", "LargeList") for form in forms)
            if not several and any(len(texts) > 1 for texts in references):
                raise ValueError("it takes one reference per row, and some rows have several")
            return made.compute(
                predictions=predictions, references=references if several else [texts[0] for texts in references]
            )

    return compute


def metric_faults(paths: Sequence[str], kept: Sequence[str]) -> Iterator[str]:
    """Why metrics of the user's own cannot be used; knows the scores of those that can be.

    Args:
        kept: ``data.columns.keep``.
    """
    names: dict[str, str] = {}
    for path in paths:
        try:
            found = resolve(path)
        except ConfigFault as fault:
            yield str(fault)
            continue
        if found.name in BUILT_IN:
            yield f"{KEY}={path}: {found.name} is the name of a score of the harness; give the function another name"
        elif names.setdefault(found.name, path) != path:
            yield f"{KEY}={path} and {names[found.name]} would both be named {found.name}; rename one of the functions"
        elif not found.is_module:
            given = ("predictions", "references", *COLUMNS, *kept)
            faults = list(imports.call_faults(KEY, path, found.call, given, ("predictions", "references")))
            yield from (fault.replace("it may take", "it may take (with data.columns.keep more)") for fault in faults)
        for key in found.declaration.scores or (None,):
            learn(found.score(key))


def measured(metrics: Sequence[str]) -> set[str]:
    """Names of the scores that these metrics give, as far as they are known before anything is scored."""
    found = {name for name in metrics if not imports.is_import_path(name)}
    for path in set(metrics) - found:
        with suppress(ConfigFault):  # ``metric_faults`` reports it
            own = resolve(path)
            found |= {own.score(key).name for key in own.declaration.scores or (None,)}
    return found


def columns_of(examples: "Sequence[TokenizedRow]") -> dict[str, list[Any]]:
    """What a metric may take besides predictions and references: one value per row."""
    rows = [example.row for example in examples]
    found: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in COLUMNS[:3]}
    found["prompt"] = [example.prompt for example in examples]
    return found | {name: [row.kept[name] for row in rows] for name in (rows[0].kept if rows else ())}


def compute(
    path: str, predictions: Sequence[str], references: Sequence[Sequence[str]], columns: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scores by name, and the values of each row of those that are a mean over rows.

    Raises:
        RunFault: the metric fails, or returns something else than finite numbers.
    """
    found = resolve(path)
    given = {name: list(values) for name, values in columns.items()}
    own = {} if found.is_module else imports.wanted(found.call, given)
    try:
        made = found.call(predictions=list(predictions), references=[list(texts) for texts in references], **own)
    except Exception as error:  # whatever a function of others raises
        raise RunFault(
            f"{KEY}={path} fails on {len(predictions)} answers ({first_line(error)}); fix it, or leave it out"
        ) from error
    values: dict[str, float] = {}
    of_rows: dict[str, list[float]] = {}
    for key, value in made.items() if isinstance(made, Mapping) else [(None, made)]:
        rows = _numbers(value, len(predictions))
        number = _number(value) if rows is None else math.fsum(rows) / len(rows)
        if key is not None and not isinstance(key, str):
            number = None
        if number is None or not math.isfinite(number):
            which = "" if key is None else f"[{key!r}]"
            raise RunFault(
                f"{KEY}={path}{which} is {imports.shown(value)} for {len(predictions)} answers, not a finite number, a "
                "number for each answer, or a dict of these; return a number for every list of texts, empty ones too"
            )
        score = found.score(key, rows is not None)
        learn(score)
        values[score.name] = number
        if rows is not None:
            of_rows[score.name] = rows
    if not values:
        raise RunFault(f"{KEY}={path} returns an empty dict; return at least one number, or leave it out")
    clash = next((name for name in values if name in BUILT_IN), None)
    if clash:
        raise RunFault(f"{KEY}={path}: its score {clash} has the name of one of the harness; rename it")
    return values, of_rows


def _number(value: Any) -> float | None:
    """A number of Python, numpy or torch; None for everything else."""
    if isinstance(value, bool | str | bytes) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _numbers(value: Any, count: int) -> list[float] | None:
    """One finite number per row; None for everything else."""
    if not isinstance(value, list | tuple) or len(value) != count or not count:
        return None
    found = [_number(each) for each in value]
    return [each for each in found if each is not None] if all(each is not None for each in found) else None


def signature(path: str) -> str:
    """What decides the metric's values: its code."""
    return f"{path}|code:{code_of(KEY, path).sha256[:12]}"


def definitions(values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """What a record must keep of the scores of the user's own among these."""
    return {name: definition(SCORES[name]) for name in values if name in SCORES and name not in BUILT_IN}


def tried(paths: Sequence[str], examples: "Sequence[TokenizedRow]") -> list[str]:
    """Notes on the metrics of the user's own, after each was tried on some rows: right answers, then empty ones.

    Raises:
        ConfigFault: a metric fails, or returns something else than finite numbers.
    """
    notes: list[str] = []
    own = [path for path in paths if imports.is_import_path(path)]
    rows = list(examples)[:TRIED]
    references = [list(example.row.all_references) for example in rows]
    for path in own if rows else ():
        for answers in ([texts[0] for texts in references], [""] * len(rows)):
            try:
                values, _ = compute(path, answers, references, columns_of(rows))
            except RunFault as fault:
                raise ConfigFault(f"{fault} (tried before training, on rows of scoring.split)") from fault
        found = resolve(path)
        unsaid = sorted(set(values) - {found.score(key).name for key in found.declaration.scores})
        if unsaid and found.declaration.direction is None:
            notes.append(
                f"{KEY}={path}: {', '.join(unsaid)} counts as better if it is higher, because nothing says otherwise; "
                "harness.scoring.custom.metric(direction=...) does"
            )
    return notes
