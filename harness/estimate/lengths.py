"""How long the rows of a plan are, in tokens; by its settings alone if there is no tokenizer here."""

from dataclasses import dataclass, replace
from functools import cache

from harness.data import dataset
from harness.errors import HarnessError
from harness.models import sources as model_sources
from harness.plan.spec import Plan, digest


@dataclass(frozen=True)
class Lengths:
    """Rows and tokens."""

    train: int | None  # rows; None: they are not on this machine
    scored: int | None
    mean: float  # tokens of a training row
    labels: float  # of them trained, on average
    longest: int
    most_labels: int
    note: str | None = None  # what is not read from the rows

    def of_at_most(self, tokens: int) -> "Lengths":
        """The same with another longest row."""
        return replace(
            self,
            mean=min(self.mean, tokens),
            labels=min(self.labels, tokens - 1),
            longest=tokens,
            most_labels=min(self.most_labels, tokens - 1),
        )


def lengths_of(plan: Plan) -> Lengths:
    """Rows and lengths, read once for each data set and tokenizer of this process; nothing is downloaded."""
    whole = plan.as_dict()
    key = digest([whole["data"], whole["inputs"], whole["scoring"]["split"], whole["model"]["path"]])
    if key not in _known():
        _known()[key] = _read(plan)
    return _known()[key]


@cache
def _known() -> dict[str, Lengths]:
    return {}


def _read(plan: Plan) -> Lengths:
    data = plan.data
    labels = min(plan.scoring.generation.max_new_tokens + 1, data.max_tokens - 1)
    try:
        found = dataset.read_splits(data)
    except HarnessError as error:
        reason = str(error).partition(";")[0]
        note = (
            f"rows are not read ({reason}): lengths are data.max_tokens={data.max_tokens}; time needs trainer.max_steps"
        )
        return Lengths(None, None, data.max_tokens, labels, data.max_tokens, labels, note)
    train, scored = len(found.splits["train"]), len(found.splits[plan.scoring.split])
    folder = model_sources.cached_folder(plan.model)
    if folder is None:
        note = f"model={plan.model.name} has no tokenizer here: every row counts as data.max_tokens={data.max_tokens}"
        return Lengths(train, scored, data.max_tokens, labels, data.max_tokens, labels, note)
    from harness.data.tokenize import tokenize_splits
    from harness.models.tokenizer import load_tokenizer

    rows = tokenize_splits(found, data, load_tokenizer(folder, plan.model.trust_remote_code)[0]).splits["train"]
    sizes = [len(row.input_ids) for row in rows]
    trained = [len(row.input_ids) - row.prompt_length for row in rows]
    return Lengths(len(rows), scored, sum(sizes) / len(rows), sum(trained) / len(rows), max(sizes), max(trained))
