"""What ``data.*`` must satisfy before any row is read. The plan asks first; so does whoever reads without a plan."""

from collections.abc import Iterator

from harness.config.schema import Data, RowFormat
from harness.data.splits import SPLITS
from harness.errors import at_least, fraction


def data_faults(data: Data) -> Iterator[str]:
    """Every fault of these settings by themselves, as a message with key, value and remedy."""
    for name in needed_columns(data.format):
        if name == "instruction" and data.instruction:
            continue
        if not getattr(data.columns, name):
            or_text = ", or set data.instruction to one text for all rows" if name == "instruction" else ""
            yield f"data.columns.{name}=null but data.format={data.format.value} needs it; name the column{or_text}"
    if data.instruction is not None and not data.instruction.strip():
        yield "data.instruction is empty; give the text that stands before every row's input, or null"
    if data.instruction is not None and data.format is RowFormat.messages:
        yield "data.instruction is not for data.format=messages; put a system message into the rows, or set it to null"
    if not data.path:
        yield "data.path is empty; name a file, a folder or a data set on the hub, e.g. data.path=rows.jsonl"
    fractions = {name: getattr(data.fractions, name) for name in ("validation", "test")}
    for name, value in fractions.items():
        yield from fraction(f"data.fractions.{name}", value)
    if max(fractions.values()) < 1 <= sum(fractions.values()):
        yield "data.fractions.validation + data.fractions.test leave no training rows; lower them"
    for split in SPLITS:
        yield from at_least(f"data.limits.{split}", getattr(data.limits, split), 1)
    yield from at_least("data.max_tokens", data.max_tokens, 4)


def needed_columns(format: RowFormat) -> tuple[str, ...]:
    """The keys of ``data.columns`` that must name a column."""
    return ("messages",) if format is RowFormat.messages else ("instruction", "output")
