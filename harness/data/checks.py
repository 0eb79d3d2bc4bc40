"""What ``data.*`` must satisfy before any row is read. The plan asks first; so does whoever reads without a plan."""

import difflib
from collections.abc import Iterator
from enum import Enum
from typing import Any

from harness.config.schema import Data, RowFormat, Template
from harness.data import own_templates
from harness.data.splits import SPLITS
from harness.errors import above, at_least, brief, fraction
from harness.extensions import imports


def data_faults(data: Data) -> Iterator[str]:
    """Every fault of these settings by themselves, as a message with key, value and remedy."""
    yield from _format_faults(data.format)
    yield from template_faults("data.template", data.template, data.columns.keep)
    for name in needed_columns(data.format):
        if name == "instruction" and data.instruction:
            continue
        if not getattr(data.columns, name):
            or_text = ", or set data.instruction to one text for all rows" if name == "instruction" else ""
            yield f"data.columns.{name}=null but data.format={data.format} needs it; name the column{or_text}"
    if data.instruction is not None and not data.instruction.strip():
        yield "data.instruction is empty; give the text that stands before every row's input, or null"
    if data.instruction is not None and data.format is RowFormat.messages:
        yield "data.instruction is not for data.format=messages; put a system message into the rows, or set it to null"
    if data.format is RowFormat.preference and data.group_by_prompt:
        yield "data.group_by_prompt=true would merge pairs of answers with one prompt; set data.group_by_prompt=false"
    if data.columns.rejected is not None and data.format is not RowFormat.preference:
        yield (
            f"data.columns.rejected={brief(data.columns.rejected)} is for data.format=preference, not {data.format}; "
            "set data=preference, or data.columns.rejected=null"
        )
    if data.options is not None:
        if data.columns.options is not None:
            yield f"data.options and data.columns.options={data.columns.options} both name options; set one to null"
        if len(set(data.options)) < max(2, len(data.options)) or not all(text.strip() for text in data.options):
            yield f"data.options={data.options} must be two or more different texts; write data.options=[no,yes]"
    yield from _class_weight_faults(data.class_weights)
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


def _class_weight_faults(weights: Any) -> Iterator[str]:
    if weights is None:
        return
    if not isinstance(weights, dict) or not weights:
        shown = brief(str(weights))
        yield f"data.class_weights={shown} is not a weight by output; write data.class_weights={{yes: 2}}, or null"
        return
    for output, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            yield f"data.class_weights.{brief(str(output))}={brief(str(weight))} is not a number; use one above 0"
        else:
            yield from above(f"data.class_weights.{brief(str(output))}", weight, 0)


def _format_faults(format: str) -> Iterator[str]:
    if not imports.is_import_path(format):
        yield from own_or_one_of("data.format", format, RowFormat, "my_pkg.rows:convert")
        return
    fault = imports.load_fault("data.format", format)
    if fault is not None:
        yield fault
        return
    function = imports.load("data.format", format)
    parameters = imports.signature(function) if callable(function) else {}
    needed = [each for each in (parameters or {}).values() if each.default is each.empty]
    if parameters is not None and (len(needed) > 1 or not parameters):
        yield f"data.format={format} must take one row, a dict of its columns; define it as convert(row)"


def template_faults(key: str, template: str, kept: list[str]) -> Iterator[str]:
    """Why a setting holds no template; ``kept``: the columns that a template of the user's own may show."""
    if own_templates.is_own(template):
        yield from own_templates.template_faults(key, template, kept)
    else:
        yield from own_or_one_of(key, template, Template, "my_pkg.templates:prompt, or text for Jinja")


def own_or_one_of(key: str, value: str, names: type[Enum], example: str) -> Iterator[str]:
    """Fault of a name that is neither built in nor an import path."""
    if value in {each.value for each in names}:
        return
    known = [str(each.value) for each in names]
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    guess = f"did you mean {key}={close[0]}? " if close else ""
    choices = f"choose one of {', '.join(known)}, or an import path such as {example}"
    yield f"{key}={brief(value)} is unknown; {guess}{choices}"


def needed_columns(format: str) -> tuple[str, ...]:
    """The keys of ``data.columns`` that must name a column."""
    if imports.is_import_path(format):
        return ()
    if format is RowFormat.preference:
        return ("instruction", "output", "rejected")
    return ("messages",) if format is RowFormat.messages else ("instruction", "output")
