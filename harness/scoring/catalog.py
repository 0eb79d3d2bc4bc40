"""The catalog of scores: one row each, read by tables, the plan's checks, Optuna, the tracker and the docs.

A new metric is its module ``harness/scoring/metrics/<name>/<name>.py`` and one row here; metrics of the user's own join
by import path (``custom``). Rows stand in the order of
the columns of a table; when a terminal is too narrow, the last ones are left out first.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

Direction = Literal["maximize", "minimize"]  # as Optuna and W&B name it
Unit = Literal["percent", "nats per token", "ratio"]
Aggregation = Literal["mean over rows", "mean over tokens", "corpus"]

# The values of scoring.tokenize, and the text each is for. `13a` is sacrebleu's name for the tokenizer of published
# English BLEU; the rows below set the tokenizers of published English ROUGE-L and SQuAD F1 beside it.
TOKENIZE: Mapping[str, str] = MappingProxyType(
    {
        "zh": "Chinese, and Chinese mixed with other scripts; others with spaces between words, such as Russian",
        "13a": "English, for comparison with papers",
        "char": "any script, by character",
        "jieba": "Chinese, by word",
    }
)

AUTO = "auto"  # the value of scoring.tokenize that takes the data's own; a plan never holds it once rows can be read
# By the script of the data's outputs (``harness.data.language``).
TOKENIZE_OF_SCRIPT: Mapping[str, str] = MappingProxyType(
    {"latin": "13a", "han": "zh", "unspaced": "char", "other": "zh"}
)


JUDGE = "judge"  # the metric of a second model


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score. ``ValueError`` if its fields contradict each other."""

    name: str  # in records, in scoring.metrics and in hydra.sweeper.objective
    description: str
    direction: Direction  # which way is better
    unit: Unit
    aggregation: Aggregation
    decimals: int  # shown for values below 100
    label: str = ""  # column heading; empty: the name
    # What a metric compares answers with; options: it compares their probabilities; None: it is no metric.
    needs: Literal["references", "targets", "judge", "options"] | None = None
    # Its own tokenizer for each value of scoring.tokenize; empty: it does not tokenize.
    tokenizers: Mapping[str, str] = field(default_factory=dict)
    repeats: str | None = None  # the score it is computed from; left out of a narrow table before all others

    def __post_init__(self) -> None:
        for value, kind in ((self.direction, Direction), (self.unit, Unit), (self.aggregation, Aggregation)):
            if value not in get_args(kind):
                raise ValueError(f"score {self.name}: {value!r} is unknown; choose one of {', '.join(get_args(kind))}")
        if self.tokenizers and set(self.tokenizers) != set(TOKENIZE):
            raise ValueError(f"score {self.name}: give a tokenizer for each of {', '.join(TOKENIZE)}, or none at all")
        if self.tokenizers and not self.reads_answers:
            raise ValueError(f"score {self.name}: only a metric of answers tokenizes; set needs")

    @property
    def is_metric(self) -> bool:
        """Whether ``scoring.metrics`` may hold it."""
        return self.needs is not None

    @property
    def reads_answers(self) -> bool:
        """Whether it is computed from generated answers."""
        return self.needs in ("references", "targets", "judge")

    @property
    def lower_is_better(self) -> bool:
        return self.direction == "minimize"

    @property
    def heading(self) -> str:
        """Column heading, with an arrow towards better values."""
        return f"{self.label or self.name} {'↓' if self.lower_is_better else '↑'}"


# The other shares of rows whose most probable option is right differ in how options are weighed.
_CHOICE_ACC = Score(
    name="choice_acc",
    description="rows whose most probable option is right",
    direction="maximize",
    unit="percent",
    aggregation="mean over rows",
    decimals=1,
    needs="options",
)

_ROWS = (
    Score(
        name="rouge_l",
        description="longest-common-subsequence F1, as ROUGE-L",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="references",
        tokenizers={"zh": "mixed", "13a": "rouge", "char": "char", "jieba": "jieba"},
    ),
    Score(
        name="names_target",
        description="answers that name the row's target before any other candidate",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="targets",
    ),
    Score(
        name="exact_match",
        description="answers equal to a reference after normalization",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="references",
    ),
    Score(
        name="final_number",
        description="answers that end in the number of a reference, as GSM8K",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="references",
    ),
    Score(
        name="math_answer",
        description="answers that state the result of a reference: a number, a fraction or a formula, as MATH",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="references",
    ),
    Score(
        name="item_f1",
        description="F1 of what answers list: values of JSON with their names, or lines",
        direction="maximize",
        unit="percent",
        aggregation="corpus",
        decimals=1,
        needs="references",
    ),
    Score(
        name="token_f1",
        description="bag-of-tokens F1, as SQuAD",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="references",
        tokenizers={"zh": "mixed", "13a": "squad", "char": "char", "jieba": "jieba"},
    ),
    Score(
        name="chrf",
        description="character n-gram F2, by sacrebleu",
        direction="maximize",
        unit="percent",
        aggregation="corpus",
        decimals=1,
        needs="references",
    ),
    Score(
        name="bleu",
        description="corpus BLEU-4, by sacrebleu",
        direction="maximize",
        unit="percent",
        aggregation="corpus",
        decimals=1,
        needs="references",
        tokenizers={"zh": "zh", "13a": "13a", "char": "char", "jieba": "jieba"},
    ),
    Score(
        name=JUDGE,
        description="mean grade of answers by a second model, scoring.judge",
        direction="maximize",
        unit="percent",
        aggregation="mean over rows",
        decimals=1,
        needs="judge",
    ),
    _CHOICE_ACC,
    replace(
        _CHOICE_ACC,
        name="choice_acc_tokens",
        description="likewise, by log-probability per token",
        repeats="choice_acc",
    ),
    replace(
        _CHOICE_ACC,
        name="choice_acc_chars",
        description="likewise, per character, as acc_norm of lm-evaluation-harness",
        repeats="choice_acc",
    ),
    replace(
        _CHOICE_ACC,
        name="choice_acc_bytes",
        description="likewise, per byte of UTF-8",
        repeats="choice_acc",
    ),
    replace(
        _CHOICE_ACC,
        name="choice_acc_pmi",
        description="likewise, relative to the option's probability without a prompt",
        repeats="choice_acc",
    ),
    Score(
        name="choice_f1",
        description="mean F1 over the options that all rows share, by scoring.choices.by",
        direction="maximize",
        unit="percent",
        aggregation="corpus",
        decimals=1,
        needs="options",
    ),
    Score(
        name="choice_ece",
        description="expected calibration error of the chosen options, by scoring.choices.by",
        direction="minimize",
        unit="percent",
        aggregation="corpus",
        decimals=1,
        needs="options",
    ),
    Score(
        name="loss",
        description="cross-entropy of the completion on scoring.split",
        direction="minimize",
        unit="nats per token",
        aggregation="mean over tokens",
        decimals=3,
    ),
    Score(
        name="perplexity",
        description="exp(loss)",
        direction="minimize",
        unit="ratio",
        aggregation="mean over tokens",
        decimals=3,
        repeats="loss",
    ),
    Score(
        name="forgetting_loss",
        description="cross-entropy on the general text of scoring.forgetting",
        direction="minimize",
        unit="nats per token",
        aggregation="mean over tokens",
        decimals=3,
    ),
    Score(
        name="validation_loss",
        description="cross-entropy of the completion on the validation rows, taken in training",
        direction="minimize",
        unit="nats per token",
        aggregation="mean over tokens",
        decimals=3,
        label="val. loss",
    ),
)


BUILT_IN: Mapping[str, Score] = MappingProxyType({row.name: row for row in _ROWS})
SCORES: dict[str, Score] = dict(BUILT_IN)  # and those of the user's own that this process knows, see ``learn``


def metric_names() -> tuple[str, ...]:
    """The built-in metrics that ``scoring.metrics`` may hold, besides import paths."""
    return tuple(name for name, score in BUILT_IN.items() if score.is_metric)


def learn(score: Score) -> None:
    """Know a score of the user's own, from its function or from a record; it stands after the built-in metrics."""
    if score.name in BUILT_IN or SCORES.get(score.name) == score:
        return
    losses = {name: SCORES.pop(name) for name, known in BUILT_IN.items() if not known.is_metric}
    SCORES[score.name] = score
    SCORES.update(losses)


def definition(score: Score) -> dict[str, Any]:
    """What a record keeps of a score of the user's own, so that reports need not import its code."""
    return {key: getattr(score, key) for key in _DEFINED}


def learn_record(record: Mapping[str, Any]) -> None:
    """Know the scores of the user's own that a record defines."""
    for name, known in (record.get("scores", {}).get("definitions") or {}).items():
        with suppress(TypeError, ValueError, KeyError):  # of a record by other code: shown without an arrow
            learn(Score(name=name, needs="references", **{key: known[key] for key in _DEFINED}))


_DEFINED = ("description", "direction", "unit", "aggregation", "decimals")


def answer_metrics() -> tuple[str, ...]:
    """Those of them that a module under ``metrics/`` computes from generated answers."""
    return tuple(name for name, score in BUILT_IN.items() if score.reads_answers and name != JUDGE)


def reads_answers(name: str) -> bool:
    """Whether the metric needs generated answers, not the probabilities of options."""
    return name not in SCORES or SCORES[name].reads_answers


def decimals(name: str, size: float) -> int:
    """Decimals to show for a value of that size; a score that the catalog lacks (from an older record) gets 1."""
    usual = SCORES[name].decimals if name in SCORES else 1
    return usual if size < 100 else min(usual, 1) if size < 10_000 else 0
