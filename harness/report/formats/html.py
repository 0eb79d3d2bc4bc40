"""``report.html``: one file that needs no network, no server and no other file."""

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.plan.spec import digest
from harness.report.answers import Answers, judge_of, read_answers, rights
from harness.report.formats.markdown import baseline_notes, captions
from harness.report.model import Configuration, Curve, Group, Report, Run
from harness.report.overview import (
    COST_LABELS,
    interval_text,
    overview_columns,
    published_caption,
    published_table,
    score_direction,
    score_label,
    shares_best,
)
from harness.report.statistics.model import Comparison, Interval
from harness.runtime.terminal import printable
from harness.scoring.catalog import decimals

PAGE = Path(__file__).resolve().parents[1] / "page"

EMBEDDED_RUNS = 20  # whose answers are there when the page opens; those of others are unpacked on a click
PACKED_CHARACTERS = 64 * 2**20  # of packed answers, beyond which the answers of further runs stay in their files

Content = dict[str, Any]


def to_html(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Letters outside ASCII as escapes: an answer may hold half of a pair, which no UTF-8 file can.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":"), "ensure_ascii": True}
    embedded, packed, left_out = _answers(report)
    packed = {"plotly": _plotly(), "details": pack(_details(report.runs)), **packed}
    packed |= {f"curves-{number}": pack(_curves(group.runs)) for number, group in enumerate(report.groups)}
    columns = {group.key: overview_columns(group) for group in report.groups}
    best = {(group.key, name): shares_best(group, name) for group in report.groups for name in group.scores}
    page = environment.get_template("page.html.j2").render(
        report=report,
        headlines=report.headlines,
        others=[finding for finding in report.findings if finding not in report.headlines],
        comparisons_of=_comparisons,
        data=_data(report),
        embedded=embedded,
        packed=packed,
        left_out=left_out,
        style=Markup((PAGE / "page.css").read_text(encoding="utf-8")),
        script=Markup((PAGE / "page.js").read_text(encoding="utf-8")),
        columns_of=lambda group: columns[group.key],
        methods_of=lambda group: list(dict.fromkeys(row.method for row in group.configurations)),
        notes_of=lambda group: [*baseline_notes(group), *captions(group), *group.notes],
        best_of=lambda group, name: best.get((group.key, name), ()),
        published_of=lambda group: published_table(group.published),
        published_caption=lambda group: published_caption(group.published),
        hint_of=_hint,
        number=number_text,
        span=_span,
    )
    return str(page).encode("utf-8", "backslashreplace").decode()


def number_text(value: float | None, signed: bool = False) -> str:
    """Four significant digits."""
    if value is None:
        return "-"
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def pack(value: Any) -> str:
    """JSON, compressed, as text; the page unpacks it with the browser's own ``DecompressionStream``."""
    return pack_bytes(json.dumps(value, separators=(",", ":")).encode())


def pack_bytes(content: bytes) -> str:
    """Compressed, as text. Equal contents give equal texts."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return pack_bytes(get_plotlyjs().encode())


def _span(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{number_text(interval.low, True)} to {number_text(interval.high, True)}"


def _comparisons(group: Group) -> dict[str, list[Comparison]]:
    """By score, in the order of the columns; without those of which seeds are too few to say anything."""
    found = {name: [each for each in group.comparisons if each.metric == name] for name in group.scores}
    return {name: each for name, each in found.items() if any(one.verdict != "too few seeds" for one in each)}


def _hint(row: Configuration, name: str) -> str:
    """What stands behind a score's cell."""
    interval = row.scores.get(name)
    if interval is None:
        return "not measured in all of its runs"
    parts = [f"{interval_text(name, interval)}, n = {interval.n}"]
    if interval.sd is not None:
        parts.append(f"standard deviation {number_text(interval.sd)}")
    if name in row.changes:
        parts.append(f"change {number_text(row.changes[name], signed=True)}")
    if name in row.floors:
        parts.append(f"A/A noise floor {number_text(row.floors[name])}")
    return "; ".join(parts)


def _data(report: Report) -> Content:
    """What the script needs at once: configurations, axes and fronts; runs by name."""
    return {"groups": [_group(group) for group in report.groups]}


def _group(group: Group) -> Content:
    return {
        "title": group.title,
        "scores": [
            {
                "name": name,
                "label": score_label(name),
                "better": score_direction(name),
                "digits": decimals(name, 1.0),
            }
            for name in group.scores
        ],
        "costs": [
            {"name": name, "label": COST_LABELS[name], "scale": 2**20 if name.endswith("_bytes") else 1}
            for name in group.costs
        ],
        "rows": [_row(row) for row in group.configurations],
        "axes": [
            {
                "name": axis.name,
                "log": axis.logarithmic,
                "lines": [{"method": line.method, "label": line.label, "points": line.points} for line in axis.lines],
            }
            for axis in group.axes
        ],
        "fronts": group.fronts,
        "runs": [
            {"run": run.fingerprint, "key": run.configuration, "label": _label(run), "state": run.state}
            for run in group.runs
        ],
    }


def _label(run: Run) -> str:
    return f"{' '.join(part for part in (run.method, run.setting) if part)}, seed {run.seed}"


def _row(row: Configuration) -> Content:
    return {
        "key": row.key,
        "number": row.number,
        "method": row.method,
        "label": row.label,
        "rate": row.learning_rate,
        "runs": row.runs,
        "remarks": "; ".join(part for part in (row.selected, *row.marks) if part),
        "scores": {name: [each.mean, each.low, each.high, each.n] for name, each in row.scores.items()},
        "changes": row.changes,
        "costs": row.costs,
        "floors": row.floors,
    }


def _curves(runs: Sequence[Run]) -> Content:
    return {run.fingerprint: [_points(run.training), _points(run.validation)] for run in runs}


def _points(curve: Curve | None) -> list[Any]:
    if curve is None:
        return [[], []]
    return [curve.steps, [None if loss is None else float(f"{loss:.5g}") for loss in curve.losses]]


def _details(runs: Sequence[Run]) -> Content:
    """What two runs may differ in: names once, then a list of values for each run."""
    names = list(dict.fromkeys(name for run in runs for name in run.details))
    return {"names": names, "values": {run.fingerprint: [run.details.get(name) for name in names] for run in runs}}


def _answers(report: Report) -> tuple[Content, dict[str, str], list[str]]:
    """Answers of the chosen runs as they are, those of others packed, and the runs for which there was no room."""
    embedded: Content = {}
    packed: dict[str, str] = {}
    left_out: list[str] = []
    room = PACKED_CHARACTERS
    for number, run in enumerate(_chosen_first(report.groups)):
        answers = read_answers(run.predictions) if run.predictions else None
        if answers is None:
            continue
        shared, own = _content(run, answers)
        store = {**shared, f"answers-{run.fingerprint}": own}
        if number < EMBEDDED_RUNS:
            embedded |= store
            continue
        new = {name: pack(value) for name, value in store.items() if name not in embedded and name not in packed}
        room -= sum(map(len, new.values()))
        if room < 0:
            left_out.append(run.fingerprint)
        else:
            packed |= new
    return embedded, packed, left_out


def _chosen_first(groups: Sequence[Group]) -> Iterator[Run]:
    """Runs with answers: the best of each method first, one group after the other, then all in the table's order."""
    queues = [list(_in_order(group)) for group in groups]
    seen: set[str] = set()
    for place in range(max(map(len, queues), default=0)):
        for queue in queues:
            if place < len(queue) and queue[place].fingerprint not in seen:
                seen.add(queue[place].fingerprint)
                yield queue[place]


def _in_order(group: Group) -> Iterator[Run]:
    runs = {run.fingerprint: run for run in group.runs if run.predictions is not None}
    rows: list[Configuration] = list(group.configurations)
    if group.scores and score_direction(group.scores[0]) is not None:
        name = group.scores[0]
        sign = -1.0 if score_direction(name) == "maximize" else 1.0
        rows.sort(key=lambda row: sign * row.scores[name].mean if name in row.scores else float("inf"))
    best = {row.method: row for row in reversed(rows)}.values()
    for row in [*best, *(row for row in rows if row not in best)]:
        if row.runs[0] in runs:
            yield runs.pop(row.runs[0])
    yield from runs.values()


def _content(run: Run, answers: Answers) -> tuple[Content, Content]:
    """The rows and the untouched model's answers, which runs share, and the run's own answers."""
    name, right = judge_of(run)
    rows, before = f"rows-{answers.row_set}", f"before-{digest([answers.row_set, answers.before, name])}"
    shared = {
        rows: {"prompts": _shown(answers.prompts), "references": [_shown(each) for each in answers.references]},
        before: {
            "answers": _shown(answers.before),
            "right": _flags(rights(answers.before, answers.references, right)),
        },
    }
    own = {
        "rows": rows,
        "before": before,
        "judge": name,
        "answers": _shown(answers.after),
        "right": _flags(rights(answers.after, answers.references, right)),
    }
    return shared, own


def _shown(texts: Sequence[str]) -> list[str]:
    return [printable(text) for text in texts]


def _flags(values: Sequence[bool]) -> str:
    return "".join("1" if value else "0" for value in values)
