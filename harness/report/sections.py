"""Sections of a report that the user's own functions make: ``report.sections=[my_pkg.sections:costs]``.

    def costs(report):
        rows = [[row.label, row.costs.get("train_s")] for group in report.groups for row in group.configurations]
        return {"title": "Costs", "text": ["Seconds of training."], "columns": ["method", "seconds"], "rows": rows}

A function gets the whole ``Report`` and returns such a dict, or a ``Section``; ``text``, ``columns`` and ``rows`` may
be left out. The texts are data: shown as they are, neither as Markdown nor as HTML.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import ConfigFault, first_line
from harness.extensions import imports
from harness.report.model import Report, Section

log = logging.getLogger(__name__)

KEY = "report.sections"


def own_sections(report: Report, paths: Sequence[str]) -> tuple[list[Section], list[str]]:
    """The sections, and a note on each function that fails: a report is not lost with it.

    Raises:
        ConfigFault: an import path leads nowhere.
    """
    found, notes = [], []
    for path in paths:
        function = imports.load(KEY, path)
        try:
            found.append(_section(function(report)))
        except Exception as error:  # whatever a function of others raises
            reason = str(error) if isinstance(error, ConfigFault) else first_line(error)
            notes.append(f"{KEY}={path} is left out: {reason}")
            log.warning("%s", notes[-1])
    return found, notes


def _section(made: Any) -> Section:
    """What a function returned, as a section.

    Raises:
        ConfigFault: it is something else.
    """
    if isinstance(made, Section):
        made = vars(made)
    if not isinstance(made, Mapping) or not isinstance(made.get("title"), str) or not made["title"].strip():
        raise ConfigFault(
            f"it returned {imports.shown(made)}; return a dict with a title, and text or columns and rows"
        )
    if strays := sorted(map(str, set(made) - {"title", "text", "columns", "rows"})):
        raise ConfigFault(f"it returned {', '.join(strays)} besides title, text, columns and rows; leave them out")
    text = made.get("text", ())
    columns, rows = [list(made.get(name, ())) for name in ("columns", "rows")]
    if any(len(list(row)) != len(columns) for row in rows):
        raise ConfigFault(f"a row of its table does not have {len(columns)} cells, one for each of columns")
    return Section(
        title=made["title"],
        text=(text,) if isinstance(text, str) else tuple(map(str, text)),
        columns=tuple(map(str, columns)),
        rows=tuple(tuple(map(_cell, row)) for row in rows),
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
