"""Writes ``docs/benchmarks.md`` from what was measured; a figure that was not measured is shown as that."""

import statistics
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lines import Line

from peer_bench import environments, growth
from peer_bench.contestants import CONTESTANTS
from peer_bench.measure import ANSWER, ANSWERS, OWN_SWEEPS, SCORED
from peer_bench.ratios import SMALLEST, TOKENS_APART, TOLERANCE, Work, inverse, ratio, times
from peer_bench.targets import COMMAND_TITLES, Target, command_lines, lines_of, sweep_lines, targets
from peer_bench.workloads import WORKLOADS

MIB = 2**20
PICTURE = "pictures/growth.png"


def write_page(lines: Sequence[Line], file: Path, other: Sequence[Line] = ()) -> None:
    """Write the page, and the plot of growth beside it if growth was measured.

    Args:
        other: of another run, whose verdicts are shown beside.
    """
    found = [*growth.growths(lines)]
    if found:
        growth.plot(found, file.parent / PICTURE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(page(lines, other)) + "\n", encoding="utf-8")


def page(lines: Sequence[Line], other: Sequence[Line] = ()) -> Iterator[str]:
    """Its lines."""
    works = works_of(lines)
    yield from heading(lines)
    found = [*targets(lines, works)]
    yield from targets_table(found)
    if other:
        yield from agreement(found, [*targets(other, works_of(other))], other)
    yield from same_work()
    for work in works.values():
        yield from training_section(work)
    yield from sweeps_section(lines)
    yield from commands_section(lines)
    yield from scoring_section(lines)
    yield from growth_section(lines)


def works_of(lines: Sequence[Line]) -> dict[str, Work]:
    return {name: Work.of(lines, name) for name in WORKLOADS}


def measured_on(lines: Sequence[Line]) -> str:
    """When, and on which machine; empty if nothing was measured."""
    machines = [line for line in lines if line["kind"] == "machine"]
    if not machines:
        return ""
    first, last = machines[0], machines[-1]
    commits = [*dict.fromkeys(line["commit"] for line in machines if line["commit"])]
    return (
        f"Measured {first['at'][:10]} on {last['cores']} core{'s' * (last['cores'] > 1)} of {last['cpu']}, "
        f"{last['memory_bytes'] / 2**30:.0f} GiB, {last['system']}, Python {last['python']}, "
        f"commit {', '.join(commits) or 'unknown'}."
    )


def heading(lines: Sequence[Line]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Written by `python scripts/bench/peers.py` from `docs/results/peers.jsonl`. Do not edit."
    yield ""
    machine = measured_on(lines)
    if not machine:
        yield "Nothing has been measured."
        return
    yield machine
    yield ""
    versions = {line["environment"]: line["versions"] for line in lines if line["kind"] == "versions"}
    for name, each in versions.items():
        own = "this project and the bare loop, as a user installs it: " if name == environments.OWN else ""
        yield f"- {own}" + ", ".join(f"{package} {version}" for package, version in each.items())
    loads = [line["load"] for line in lines if "load" in line]
    if loads:
        busy = statistics.median(loads)
        yield ""
        yield (
            f"Load of the machine in the minute before a command: median {busy:.1f}, at most {max(loads):.1f}; this "
            "benchmark alone makes 1.0."
            + (
                " **Others computed at the same time**, so that times are longer than on a quiet machine and differ "
                "from round to round; ratios of CPU time suffer less."
                if busy > 1.5
                else ""
            )
        )


def targets_table(found: Sequence[Target]) -> Iterator[str]:
    yield ""
    yield "## Targets"
    yield ""
    yield (
        "Ratios are of one round, ours over the other's: the median, and in brackets the lowest and the highest. The "
        "verdict goes by the median; fewer than five rounds are a first look."
    )
    yield ""
    yield "| target | aim | measured | verdict |"
    yield "| --- | --- | --- | --- |"
    for target in found:
        yield f"| {target.text} | {target.aim} | {target.measured} | {target.verdict} |"


def agreement(found: Sequence[Target], others: Sequence[Target], other: Sequence[Line]) -> Iterator[str]:
    """Whether another run comes to the same verdicts, and where it does not."""
    both = [(one, its) for one, its in zip(found, others, strict=True) if None not in (one.met, its.met)]
    agreeing = sum(one.met == its.met for one, its in both)
    yield ""
    yield "### Another run"
    yield ""
    yield measured_on(other)
    yield ""
    yield f"Its verdicts agree in {agreeing} of {len(both)} targets that both runs have measured."
    yield ""
    yield "| target | aim | this run | the other | verdicts |"
    yield "| --- | --- | --- | --- | --- |"
    for one, its in both:
        word = "**differ**" if one.met != its.met else "both met" if one.met else "neither met"
        yield f"| {one.text} | {one.aim} | {one.shown} | {its.shown} | {word} |"


SAME_WORK = (
    """Every contestant reads the same base folder (float32) and the same rows, each once, and trains LoRA of the same
    rank, alpha and targets by AdamW without weight decay: the same optimizer steps of the same number of rows, cosine
    after one step of warm-up, clipping at 1 (LitGPT cannot clip), no evaluation, no gradient checkpointing, one thread.
    Contestants take turns, and another one begins each round. The bare loop has our model and our batches, in our
    order; the others have their own order of rows. The lesson's recipe pads every row to 512 tokens and computes all
    logits, 4 rows a pass; its labels are corrected, because training on others could not be compared.""",
    """A hook that Python loads at its start writes the time of the first batch and of the end of each optimizer step,
    in every library alike, and counts the tokens that reach the embedding. *tokens/s* are tokens of text without
    padding, over the time from the first batch to the end of the last step. *Peak* is the resident memory of the
    largest process. *First step* and *command* count from the start of the command; ours also scores one row.""",
    f"""A comparison is void if the losses on held-out rows, computed by one evaluator from what each contestant has
    saved, lie further apart than {TOLERANCE:.0%} of what our training gains, or {SMALLEST:g} nats if that is more; or
    if one has read other tokens than the rows have, by more than {TOKENS_APART:.0%}.""",
)


def same_work() -> Iterator[str]:
    yield ""
    yield "## The same work"
    for paragraph in SAME_WORK:
        yield ""
        yield wrapped(paragraph)


def wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def training_section(work: Work) -> Iterator[str]:
    described = WORKLOADS[work.name]
    yield ""
    yield f"## {described.title[0].upper()}{described.title[1:]}"
    yield ""
    if not work.runs:
        yield "Not measured." + failures_text(work.failures)
        return
    steps = work.runs[-1]["steps"]
    tokens = work.runs[-1]["tokens"]
    yield (
        f"{steps} steps of {described.batch} rows, {tokens} tokens; LoRA r={described.rank} on "
        f"{', '.join(described.targets)}; the name of the workload is `{work.name}`."
    )
    yield ""
    yield (
        "| | tokens/s | our speed over its | by CPU time | padding % | peak MiB | our peak over its | first step s | "
        "command s | held-out loss | |"
    )
    yield "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |"
    for name in work.contestants:
        if work.of_contestant(name):
            yield training_row(work, name)
    if work.failures:
        yield failures_text(work.failures)


def training_row(work: Work, name: str) -> str:
    mine, its, loss = work.of_contestant("ours"), work.of_contestant(name), work.loss(name)
    other = name != "ours"
    void = work.void(name) if other else None
    compared = [
        ratio(mine, its, "tokens_per_s"),
        inverse(ratio(mine, its, "training_cpu_s")),
        ratio(mine, its, "peak_bytes"),
    ]
    speed, cpu, memory = ("–" if not other or void or each is None else each.text for each in compared)
    last = its[-1]
    padding = 100 * (1 - last["tokens"] / last["positions"]) if last["positions"] else None
    cells = [
        CONTESTANTS[name].title,
        figure(work.median(name, "tokens_per_s"), "{:.0f}"),
        speed,
        cpu,
        figure(padding, "{:.0f}"),
        figure(work.median(name, "peak_bytes"), "{:.0f}", MIB),
        memory,
        figure(work.median(name, "first_step_s"), "{:.1f}"),
        figure(work.median(name, "seconds"), "{:.1f}"),
        f"{loss['loss']:.4f}" if loss else "not measured",
        f"void: {void}" if void else f"{len(its)} round{'s' if len(its) > 1 else ''}",
    ]
    return f"| {' | '.join(cells)} |"


def figure(value: float | None, form: str, unit: float = 1) -> str:
    return "not measured" if value is None else form.format(value / unit)


def failures_text(failures: Sequence[Line]) -> str:
    """Who failed, and why."""
    told = {line["contestant"]: line["error"] for line in failures}
    return "".join(f"\n{CONTESTANTS[name].title} failed: `{error}`\n" for name, error in told.items())


def sweeps_section(lines: Sequence[Line]) -> Iterator[str]:
    yield ""
    yield "## Six cells"
    yield ""
    yield (
        "`lora.r=4,8,16 lora.lora_alpha=16,32` as one command of ours, runs one after another and packed, against six "
        "launches of the peer whose command is the fastest. No two cells share a run."
    )
    yield ""
    works = dict.fromkeys(line["workload"] for line in lines if line["kind"] == "sweep")
    if not works:
        yield "Not measured."
        return
    yield "| workload | | seconds | CPU s | peak MiB | rounds |"
    yield "| --- | --- | --: | --: | --: | --: |"
    for work in works:
        for name, its in sweep_lines(lines, work).items():
            if its:
                title = (
                    f"`hydra/launcher={OWN_SWEEPS[name]}`"
                    if name in OWN_SWEEPS
                    else f"six launches: {CONTESTANTS[name].title}"
                )
                columns = [
                    statistics.median([line[value] for line in its]) for value in ("seconds", "cpu_s", "peak_bytes")
                ]
                seconds, cpu, peak = columns
                yield (
                    f"| {WORKLOADS[work].title}, {its[-1]['steps']} steps a cell | {title} | {seconds:.1f} | {cpu:.1f} "
                    f"| {peak / MIB:.0f} | {len(its)} |"
                )


def commands_section(lines: Sequence[Line]) -> Iterator[str]:
    yield ""
    yield "## Commands that train nothing"
    yield ""
    found = {name: times(command_lines(lines, name), "seconds") for name in COMMAND_TITLES}
    if not any(found.values()):
        yield "Not measured."
        return
    yield "| | seconds |"
    yield "| --- | --: |"
    for name, title in COMMAND_TITLES.items():
        each = found[name]
        yield f"| {title} | {each.text if each else 'not measured'} |"


def scoring_section(lines: Sequence[Line]) -> Iterator[str]:
    yield ""
    yield "## Answers"
    yield ""
    yield (
        f"{SCORED} prompts, {ANSWER} tokens each, one thread, as scoring generates them. *Batched* and *one by one* "
        "are with LoRA. *LoRA* and *base alone* answer the same prompts in small pieces and take turns, so that a slow "
        "moment of the machine meets both alike; small pieces fill batches less well."
    )
    yield ""
    works = dict.fromkeys(line["workload"] for line in lines if line["kind"] in ANSWERS)
    if not works:
        yield "Not measured."
        return
    yield "| workload | batched s | one by one s | rounds | LoRA s | base alone s | rounds |"
    yield "| --- | --: | --: | --: | --: | --: | --: |"
    for work in works:
        cells = [WORKLOADS[work].title]
        for kind, names in (("scoring", ("batched_s", "single_s")), ("merged", ("lora_s", "base_s"))):
            found = lines_of(lines, kind, work)
            cells += [f"{statistics.median(line[name] for line in found):.1f}" if found else "–" for name in names]
            cells.append(str(len(found)))
        yield f"| {' | '.join(cells)} |"


def growth_section(lines: Sequence[Line]) -> Iterator[str]:
    yield ""
    yield "## How cost grows"
    yield ""
    found = [*growth.growths(lines)]
    if not found:
        yield "Not measured."
        return
    yield (
        "The embedded model, four points an axis; time is CPU time of the training, of the whole command for cells and "
        "packs. The exponent p of cost ~ x^p is that between the two largest points; in brackets, fitted to all four. "
        f"*faster than it must* means more than {growth.ALLOWED:g} above the limit."
    )
    yield ""
    yield "| axis | points | CPU s | exponent | limit | peak MiB | exponent | limit | why | verdict |"
    yield "| --- | --- | --- | --: | --: | --- | --: | --: | --- | --- |"
    for each in found:
        yield growth_row(each)
    yield ""
    yield f"![Time and memory against rows, row length, rank, layers, cells and packed adapters]({PICTURE})"


def growth_row(each: growth.Growth) -> str:
    axis = each.axis
    cells: list[Any] = [axis.title, ", ".join(map(str, each.seconds))]
    verdicts = []
    for values, limit, unit, form in (
        (each.seconds, axis.time_limit, 1, "{:.1f}"),
        (each.peak_bytes, axis.memory_limit, MIB, "{:.0f}"),
    ):
        power, fitted = each.exponent(values), each.fitted(values)
        shown = "not measured" if power is None or fitted is None else f"{power:.2f} ({fitted:.2f})"
        cells += [", ".join(form.format(value / unit) for value in values.values()), shown, f"{limit:g}"]
        verdicts.append(power is not None and power <= limit + growth.ALLOWED)
    whole = len(each.seconds) == len(axis.points)
    word = "as it must" if all(verdicts) else "**faster than it must**"
    return f"| {' | '.join(cells)} | {axis.why} | {word if whole else 'not measured at every point'} |"
