"""Sentences under a table: what a reader must know of its runs before comparing them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.record import provenance
from harness.record.readings import continuation_note, stopping_note
from harness.report import alike
from harness.report.choose import FoundRun
from harness.report.fields import Record
from harness.report.model import Configuration, Run


def cut_answers(configurations: Sequence[Configuration], records: Mapping[str, Record]) -> list[str]:
    """How many answers reached the limit of their length, where any did."""
    texts: dict[str, list[int]] = {}
    for each in configurations:
        cut = records[each.runs[0]]["scores"].get("cut") or {}
        if cut.get("before") or cut.get("after"):
            text = f"{cut.get('after', 0)} of {cut['of']} (baseline {cut.get('before', 0)}) at {cut['limit']} tokens"
            texts.setdefault(text, []).append(each.number)
    parts = [f"row{'s' if numbers[1:] else ''} {alike.ranges(numbers)}: {text}" for text, numbers in texts.items()]
    return [f"answers cut by scoring.generation.max_new_tokens: {'; '.join(parts)}"] if parts else []


def shared_runs(runs: Sequence[Run]) -> list[str]:
    """Which runs answer several cells of a sweep."""
    shared = [run for run in runs if len(run.cells) > 1]
    return [
        f"run {run.fingerprint} answers {len(run.cells)} cells of the sweep, whose other settings this method ignores: "
        f"{'; '.join(run.cells)}"
        for run in shared
    ]


def pruned_runs(runs: Sequence[Run]) -> list[str]:
    """How many runs of each method were ended early, and what that means for those that were not."""
    counts = Counter(run.method for run in runs if run.state == "pruned")
    if not counts:
        return []
    parts = ", ".join(f"{count} of {method}" for method, count in counts.items())
    return [
        f"pruned by sweep.prune=halving on validation loss, within each method, and in no comparison: {parts}; the "
        "runs that were kept have a lower validation loss than fresh seeds would have"
    ]


def said_of_runs(configurations: Sequence[Configuration], records: Mapping[str, Record]) -> list[str]:
    """Which runs ended by their own validation loss, and which began with weights that others had trained."""
    named = {
        (f"{each.number}" if len(each.runs) == 1 else f"{each.number} (seed {seed})"): records[run]
        for each in configurations
        for run, seed in zip(each.runs, each.seeds, strict=True)
    }
    return [note for note in (stopping_note(named), continuation_note(named)) if note is not None]


def other_code(found: Sequence[FoundRun]) -> list[str]:
    """Which results were made by another code version than the present one."""
    now = provenance.code_version()
    counts: dict[str, int] = {}
    for run in found:
        version = run.record["code"]["version"]
        if version != now and run.record["status"] == "finished":
            counts[version] = counts.get(version, 0) + 1
    return [
        f"{count} run{'s' if count > 1 else ''} made by code {version}, not by the present code {now}"
        for version, count in counts.items()
    ]
