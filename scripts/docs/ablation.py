#!/usr/bin/env python
"""Run an experiment at scale=cpu, and write docs/ablations/<name>.md with its picture from the report.

    python scripts/docs/ablation.py variants data.path=<folder>     # the same command again resumes
    python scripts/docs/ablation.py variants --runs runs/variants   # only the page, from runs that are there

Further words are overrides of the experiment. What stands below "Limits" in an existing page is kept: it is for
your own words. The exit code is that of the experiment.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sections import row

from harness.record.files import atomic_write_text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "ablations"
BY_HAND = "## Limits"
TO_WRITE = "\n\nNot written yet.\n"
COLORS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#555555", "#d16ba5")
FAR = 4.0  # times the median above the lowest loss, where the picture ends
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 70, 20, 230, 50


def main() -> int:
    """Run the experiment unless ``--runs`` names its runs, then write page and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of a file in conf/experiment/")
    parser.add_argument("overrides", nargs="*", help="data.path=<folder>, scale=smoke")
    parser.add_argument("--runs", type=Path, help="only write the page, from the one sweep in this folder")
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder for page and picture")
    given = parser.parse_args()
    named = [Path(word.partition("=")[2]) for word in given.overrides if word.startswith("runs_dir=")]
    runs_dir = given.runs or (named[-1] if named else ROOT / "runs" / "ablations" / given.name)
    if given.runs is None:
        scale = () if any(word.startswith("scale=") for word in given.overrides) else ("scale=cpu",)
        words = ("-m", f"experiment={given.name}", *scale, *given.overrides, f"runs_dir={runs_dir.absolute()}")
        done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=ROOT)
        if done.returncode:
            return done.returncode
    reports = sorted(runs_dir.glob("sweeps/*/report.json"), key=lambda file: file.stat().st_mtime)
    if not reports:
        sys.exit(f"{runs_dir} has no report of a sweep; run the experiment first")
    report = json.loads(reports[-1].read_text(encoding="utf-8"))
    if not report["shapes"]:
        sys.exit(f"{reports[-1]} holds no verdict: experiment={given.name} says nothing of what to expect")
    page = given.to / f"{given.name}.md"
    kept = page.read_text(encoding="utf-8").partition(BY_HAND)[2] if page.is_file() else ""
    atomic_write_text(given.to / f"{given.name}.svg", picture(_group(report)))
    atomic_write_text(page, "\n".join(lines_of(given.name, report)) + "\n" + BY_HAND + (kept or TO_WRITE))
    print(f"{page}: {report['shapes'][0]['verdict']}")
    return 0


def lines_of(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """The page above what is written by hand: question, command, picture, answer."""
    shape, group = report["shapes"][0], _group(report)
    yield from (f"# {shape['claim']}", "")
    yield from (f"Source: {shape['source']}. As published: {shape['figures']}.", "")
    yield from (*(f"    {command}" for command in report["commands"]), "")
    yield from (f"![Loss of each arm by learning rate]({name}.svg)", "")
    yield from (f"**{_verdict(shape['verdict'])}** {group['title']}.", "")
    yield row("rule", "verdict", "measured", "test")
    yield row(*["---"] * 4)
    for rule in shape["rules"]:
        yield row(f"`{rule['rule']}`", rule["verdict"], rule["measured"].replace("|", "\\|"), rule["test"])
    runs = [run for each in report["groups"] for run in each["runs"]]
    hours = sum(run["costs"].get("train_s") or 0.0 for run in runs) / 3600
    finished = [run for run in runs if run["state"] == "finished"]
    code = sorted({run["code"] for run in finished})
    yield from ("", f"{len(finished)} runs, {hours:.1f} hours of training, code {', '.join(code)}.", "")


def picture(group: Mapping[str, Any]) -> str:
    """An SVG of the loss by learning rate: a line for each setting, a bar for each interval over seeds."""
    curves: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for each in group["configurations"]:
        score = each["scores"].get("loss")
        if each["learning_rate"] and score and score["mean"] is not None:
            label = f"{each['method']} {each['setting']}".strip()
            curves.setdefault(label, []).append((each["learning_rate"], score))
    points = [point for curve in curves.values() for point in curve]
    if not points:
        sys.exit("no finished run has a loss, so that there is nothing to show")
    losses = [score["mean"] for _, score in points]
    lowest, middle = min(losses), statistics.median(losses)
    # Runs that diverge stand at the upper edge, so that the others can be told apart.
    x = _scale([math.log10(rate) for rate, _ in points])
    y = _scale([min(each, lowest + FAR * (middle - lowest)) for each in losses])

    def place(rate: float, loss: float) -> tuple[float, float]:
        across, down = (math.log10(rate) - x[0]) / (x[1] - x[0]), (y[1] - loss) / (y[1] - y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + min(max(down, 0), 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    ]
    for rate in sorted({rate for rate, _ in points}):
        across = place(rate, y[0])[0]
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - 28}" text-anchor="middle">{rate:.3g}</text>')
    for step in range(5):
        loss = y[0] + (y[1] - y[0]) * step / 4
        down = place(points[0][0], loss)[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    center = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{center}" y="{HEIGHT - 8}" text-anchor="middle">learning rate</text>')
    parts.append(f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})">loss</text>')
    for number, (label, curve) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        dash = ' stroke-dasharray="5 3"' if number >= len(COLORS) else ""
        curve.sort(key=lambda point: point[0])
        path = " ".join("{:.1f},{:.1f}".format(*place(rate, score["mean"])) for rate, score in curve)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        for rate, score in curve:
            parts.append(_point(place(rate, score["mean"]), color))
            if score["low"] is not None:
                (across, high), (_, low) = place(rate, score["high"]), place(rate, score["low"])
                parts.append(
                    f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{high:.1f}" y2="{low:.1f}" stroke="{color}"/>'
                )
        down = TOP + 16 * (number + 1)
        parts.append(_point((WIDTH - RIGHT + 16, down - 4), color))
        parts.append(f'<text x="{WIDTH - RIGHT + 26}" y="{down}">{escape(label)}</text>')
    return "".join(parts) + "</svg>\n"


def _group(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The runs that the first verdict is about."""
    groups: Sequence[Mapping[str, Any]] = report["groups"]
    return next((each for each in groups if each["key"] == report["shapes"][0]["group"]), groups[0])


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis, a little beyond the values."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(low) * 0.05 or 1.0
    return low - margin, high + margin


def _point(place: tuple[float, float], color: str) -> str:
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3.5" fill="{color}"/>'


def _verdict(verdict: str) -> str:
    return "Underpowered: these runs cannot tell." if verdict == "underpowered" else f"The shape {verdict}."


if __name__ == "__main__":
    sys.exit(main())
