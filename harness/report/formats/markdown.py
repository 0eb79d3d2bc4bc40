"""``report.md``: findings, tables, notes and failures as Markdown."""

import re
from collections.abc import Iterator, Sequence

from harness.report.model import Fact, Group, Report
from harness.report.overview import failure_text, overview_columns, published_caption, published_table, shares_best
from harness.scoring.catalog import decimals


def to_markdown(report: Report) -> str:
    """The report as GitHub's Markdown."""
    return "\n".join(_lines(report)) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows unchanged: an error message or a setting is data, not markup or HTML."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(header: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, whose cells are escaped already; each column's heading, and whether it is text."""
    yield f"| {' | '.join(label for label, _ in header)} |"
    yield f"| {' | '.join('---' if is_text else '--:' for _, is_text in header)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _lines(report: Report) -> Iterator[str]:
    yield from (f"# {escaped(report.title)}", "", escaped(report.chosen), "")
    yield from _shapes(report)
    if report.findings:
        yield from ("## Findings", "", *(f"- {escaped(finding.text)}" for finding in report.headlines), "")
    if report.facts:
        yield from ("Shared by all runs: " + facts_text(report.facts), "")
    for group in report.groups:
        yield from _group(group)
    yield from _sections(report)
    if report.failures:
        yield from ("## Runs without a result", "", *(f"- {escaped(failure_text(run))}" for run in report.failures), "")
    yield from ("## How this was made", "", *(f"- {escaped(note)}" for note in report.notes))
    for command in (*report.commands, report.command):
        if command:
            yield from ("", "```sh", command.replace("```", "` ` `"), "```")
    yield from ("", f"{escaped(report.created)}")


def _sections(report: Report) -> Iterator[str]:
    """What functions of the user's own add."""
    for section in report.sections:
        yield from (f"## {escaped(section.title)}", "")
        for paragraph in section.text:
            yield from (escaped(paragraph), "")
        if section.columns:
            rows = [[escaped(cell) for cell in row] for row in section.rows]
            yield from markdown_table([(escaped(name), True) for name in section.columns], rows)
            yield ""


def _shapes(report: Report) -> Iterator[str]:
    """What a paper found, and whether these runs agree."""
    for shape in report.shapes:
        yield from (f"## {escaped(shape.title)}: {escaped(shape.sentence)}", "")
        known = (("Claim", shape.claim), ("Source", shape.source), ("As published", shape.figures))
        yield from (f"- {name}: {escaped(text)}" for name, text in known if text)
        yield ""
        header = [(name, True) for name in ("expected", "verdict", "measured", "test")]
        rows = [[each.rule, each.verdict, each.measured, each.test] for each in shape.rules]
        yield from markdown_table(header, [[escaped(cell) for cell in row] for row in rows])
        yield ""


def _group(group: Group) -> Iterator[str]:
    yield from (f"## {escaped(group.title)}", "")
    if group.facts:
        yield from ("Shared: " + facts_text(group.facts), "")
    if group.runs:
        yield from _own(group)
    if group.published:
        header, cells = published_table(group.published)
        yield from (f"### {escaped(published_caption(group.published))}", "")
        yield from markdown_table(
            [(escaped(label), is_text) for label, is_text in header], [list(map(escaped, row)) for row in cells]
        )
        yield ""


def _own(group: Group) -> Iterator[str]:
    columns = overview_columns(group)
    best = {column.name: shares_best(group, column.name) for column in columns if column.is_score}
    rows = []
    for row in group.configurations:
        cells = [(escaped(column.text(row)), row.key in best.get(column.name, ())) for column in columns]
        rows.append([f"**{text}**" if bold else text for text, bold in cells])
    yield from markdown_table([(escaped(column.label), column.is_text) for column in columns], rows)
    yield ""
    yield from (f"- {escaped(note)}" for note in (*baseline_notes(group), *captions(group), *group.notes))
    yield ""
    others = [finding for finding in group.findings if finding.metric not in (*group.scores[:1], "loss")]
    if others:
        yield from ("Findings on other scores:", "", *(f"- {escaped(finding.text)}" for finding in others), "")


def facts_text(facts: Sequence[Fact]) -> str:
    """``model.name tiny, seed 0``, escaped."""
    return ", ".join(f"{escaped(fact.name)} {escaped(fact.value)}" for fact in facts)


def baseline_notes(group: Group) -> list[str]:
    """The scores of the untouched model."""
    known = [(name, group.baseline[name]) for name in group.scores if name in group.baseline]
    values = ", ".join(f"{name} {value:.{decimals(name, abs(value))}f}" for name, value in known)
    return [f"the untouched model: {values}"] if values else []


def captions(group: Group) -> list[str]:
    """What the numbers of the table are."""
    rows = [interval for row in group.configurations for interval in row.scores.values()]
    methods = dict.fromkeys(interval.method for interval in rows if interval.half_width is not None)
    found = [f"mean ± half of the 95 % interval ({', '.join(methods)})"] if methods else []
    if any(interval.half_width is None for interval in rows):
        found.append("rows with one seed have no interval")
    if any(shares_best(group, name) for name in group.scores):
        found.append("bold: the best, and what the A/A noise floor cannot tell from it")
    return found
