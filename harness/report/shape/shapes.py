"""Hold the groups of a report to what a paper leads one to expect."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.config.schema import Paper
from harness.plan.spec import digest
from harness.report import alike
from harness.report.choose import FoundRun
from harness.report.fields import Record, method_name, record_fields
from harness.report.model import Group, Shape
from harness.report.shape.grammar import parse_rule
from harness.report.shape.judge import judge_rule, verdict_of

if TYPE_CHECKING:
    from harness.report.shape.evidence import Observation

_ALIAS = re.compile(r"(?<![\w.])score(?![\w.])")  # in a rule: the first score of the group


def shapes_of(
    found: Sequence[FoundRun], groups: Sequence[Group], paper: Paper | None, clean: Callable[[str], str]
) -> tuple[Shape, ...]:
    """The verdict on each group with finished runs; none, if nothing is expected of these runs."""
    if paper is None or not paper.expect:
        return ()
    records = {run.fingerprint: run.record for run in found}
    return tuple(
        _shape(group, [records[run.fingerprint] for run in group.runs if run.state == "finished"], paper, clean)
        for group in groups
        if group.configurations
    )


def _shape(group: Group, records: Sequence[Record], paper: Paper, clean: Callable[[str], str]) -> Shape:
    from harness.report.shape.evidence import Evidence

    first = group.scores[0] if group.scores else "loss"
    evidence = Evidence([observed(record, paper.arms) for record in records], tuple(paper.arms))
    rules = [parse_rule(_ALIAS.sub(first, text)) for text in paper.expect]
    judged = [judge_rule(*pair, evidence, len(rules)) for pair in zip(paper.expect, rules, strict=True)]
    shown = [replace(each, measured=clean(each.measured)) for each in judged]
    return Shape(
        group=group.key,
        title=group.title,
        claim=clean(paper.claim or ""),
        source=clean(paper.source or ""),
        figures=clean(paper.figures or ""),
        verdict=verdict_of(shown),
        rules=tuple(shown),
    )


def observed(record: Record, arms: Mapping[str, str]) -> "Observation":
    """A finished run as the rules see it."""
    from harness.report.shape.arms import arms_with
    from harness.report.shape.evidence import Observation
    from harness.report.shape.values import VALIDATION

    fields: dict[str, Any] = record_fields(record)
    values = {name: float(value) for name, value in record["scores"].get("after", {}).items() if value is not None}
    if fields.get(VALIDATION) is not None:
        values[VALIDATION] = float(fields[VALIDATION])
    plan = alike.effective(record)
    others = {key: value for key, value in plan.items() if key not in ("seed", "learning_rate")}
    return Observation(
        arms=arms_with(fields, arms),
        method=method_name(record),
        curve=digest(others),
        rate=float(record["plan"]["learning_rate"]),
        seed=int(record["plan"].get("seed", 0)),
        fields=fields,
        values=values,
    )
