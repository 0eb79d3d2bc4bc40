"""How cost grows: time and memory against rows, row length, rank, model size, cells, and adapters in one pass.

Four points of each axis, each twice what the one before is (rank: four times), on the embedded model or one of its
shape. The exponent p of cost ~ x^p is taken between the two largest points, where the fixed part (imports, loading)
weighs least, and fitted to all four. ``LIMITS`` says what it must not exceed, and why.
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lines import Line

from peer_bench import watch
from peer_bench.contestants import CONTESTANTS, DRIVERS, OURS, our_overrides
from peer_bench.measure import FAILURES, Bench, failure_text, say, scratch
from peer_bench.workloads import WORKLOADS

ALLOWED = 0.15  # above the limit of an exponent, for noise
STEPS = 10


@dataclass(frozen=True)
class Axis:
    """What grows, the points, and the largest exponents that the work itself asks for."""

    name: str
    title: str
    points: tuple[int, ...]
    time_limit: float
    memory_limit: float
    why: str


AXES = {
    each.name: each
    for each in (
        Axis("rows", "training rows, each once", (96, 192, 384, 768), 1, 0, "each is read once; batches stay alike"),
        Axis("length", "tokens of a row", (64, 128, 256, 512), 2, 2, "attention compares each token with each"),
        Axis("rank", "LoRA rank", (2, 8, 32, 128), 1, 1, "adapters have rank x width weights"),
        Axis("layers", "layers of the model", (2, 4, 8, 16), 1, 1, "each layer costs the same"),
        Axis("cells", "cells of a sweep", (2, 4, 8, 16), 1, 0, "runs share one process and one base"),
        Axis("packed", "adapters in one pass", (1, 2, 4, 8), 1, 1, "each adapter has its rows"),
    )
}


def measure_growth(bench: Bench, rounds: int) -> None:
    """Each point of each axis once a round."""
    for number in range(rounds):
        for axis in AXES.values():
            for point in axis.points:
                where = {"axis": axis.name, "point": point, "round": number}
                if bench.results.has("growth", **where):
                    continue
                try:
                    bench.results.add("growth", **where, **measure_point(bench, axis.name, point))
                except FAILURES as failure:
                    say(f"growth, {axis.name}={point}: {failure}")
                    bench.results.add("failed", **where, error=failure_text(failure), growth=True)
        say(f"growth, round {number + 1} done")


def measure_point(bench: Bench, axis: str, point: int) -> dict[str, Any]:
    """Time, CPU time and peak memory: of the training, or of a whole command with many runs."""
    with scratch() as folder:
        words = [*fixed_overrides(bench, folder, axis, point), f"runs_dir={folder / 'runs'}"]
        several = ["-m"] if axis in ("cells", "packed") else []
        done = watch.run(
            [bench.own_python, "-m", "harness", *several, *words], cwd=folder, environment=watch.ONE_THREAD | OURS
        )
    whole = bool(several)
    return {
        "seconds": done.seconds if whole else done.training_s,
        "cpu_s": done.cpu_s if whole else done.training_cpu_s,
        "peak_bytes": done.peak_bytes,
        "tokens": done.events.tokens,
        "load": done.load,
    }


def fixed_overrides(bench: Bench, folder: Path, axis: str, point: int) -> list[str]:
    """Those of the embedded model's training, with one of them at this point."""
    tiny = WORKLOADS["tiny"]
    work = replace(tiny, steps=point // tiny.batch if axis == "rows" else STEPS)
    job = replace(bench.job(tiny, CONTESTANTS["ours"], folder), workload=work)
    words = our_overrides(job, "float32")
    if axis == "length":
        rows = folder / "rows.jsonl"
        write_rows(rows, point, work.rows)
        words = without(words, "data=", "data.template=", "data.limits.")
        words += ["data=alpaca", f"data.path={rows}", "data.max_tokens=1024", "data.fractions.test=0.01"]
        words += ["data.fractions.validation=0.01", f"data.limits.train={work.rows}"]
    elif axis == "rank":
        words = [*without(words, "lora.r="), f"lora.r={point}"]
    elif axis == "layers":
        watch.run([bench.own_python, DRIVERS / "layers.py", job.prepared.base, folder / "base", str(point)])
        words = [*without(words, "model.path="), f"model.path={folder / 'base'}"]
    elif axis == "cells":
        words = [*without(words, "seed="), f"seed=range({point})"]
    elif axis == "packed":
        alphas = ",".join(str(alpha) for alpha in range(1, point + 1))
        words = [*without(words, "lora.lora_alpha="), "hydra/launcher=packed", f"lora.lora_alpha={alphas}"]
        words.append(f"hydra.launcher.engine.max_runs={point}")
    return words


def without(words: Sequence[str], *beginnings: str) -> list[str]:
    return [word for word in words if not word.startswith(beginnings)]


def write_rows(file: Path, tokens: int, count: int) -> None:
    """Rows of nearly so many tokens each, all different: short words of one token, and a number."""
    with file.open("w", encoding="utf-8") as out:
        for number in range(2 * count):
            question = f"{number}" + " a" * (tokens - 40)
            out.write(json.dumps({"instruction": question, "input": "", "output": "a a a a a a a a"}) + "\n")


# --- what it shows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """Medians along one axis, and the exponents of time and memory."""

    axis: Axis
    seconds: dict[int, float]  # by point; CPU time, on which a busy machine has little effect
    peak_bytes: dict[int, float]

    def exponent(self, values: dict[int, float]) -> float | None:
        """Between the two largest points."""
        points = sorted(values)[-2:]
        if len(points) < 2 or min(values[point] for point in points) <= 0:
            return None
        return math.log(values[points[1]] / values[points[0]]) / math.log(points[1] / points[0])

    def fitted(self, values: dict[int, float]) -> float | None:
        """Least squares over the logarithms of all points."""
        if len(values) < 2 or min(values.values()) <= 0:
            return None
        return statistics.linear_regression([*map(math.log, values)], [*map(math.log, values.values())]).slope


def growths(lines: Sequence[Line]) -> Iterator[Growth]:
    """Of each axis that was measured."""
    measured = [line for line in lines if line["kind"] == "growth"]
    for axis in AXES.values():
        found = [line for line in measured if line["axis"] == axis.name and line["point"] in axis.points]
        if found:
            yield Growth(axis, medians(found, "cpu_s"), medians(found, "peak_bytes"))


def medians(lines: Sequence[Line], value: str) -> dict[int, float]:
    points: dict[int, list[float]] = {}
    for line in lines:
        if (found := line.get(value)) is not None:
            points.setdefault(line["point"], []).append(found)
    return {point: statistics.median(points[point]) for point in sorted(points)}


def plot(found: Sequence[Growth], file: Path) -> None:
    """Time and memory of each axis, from zero."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, len(found), figsize=(3 * len(found), 5.5), squeeze=False)
    for column, growth in enumerate(found):
        for row, (values, unit) in enumerate(((growth.seconds, "CPU s"), (growth.peak_bytes, "peak MiB"))):
            panel = panels[row][column]
            shown = [value / 2**20 if row else value for value in values.values()]
            panel.plot([*values], shown, marker="o", color="#3366aa")
            panel.set_ylim(0, 1.1 * max(shown))
            panel.set_xlim(0, 1.05 * max(values))
            panel.set_xticks([*values][-3:])
            power = growth.exponent(values)
            panel.set_title(
                f"{growth.axis.title}\n{unit} ~ x^{power:.2f}" if power is not None else growth.axis.title, size=9
            )
            panel.grid(alpha=0.3)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
