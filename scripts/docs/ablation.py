#!/usr/bin/env python
"""Run an experiment at scale=cpu, and write docs/ablations/<name>.md with its picture from the report.

    python scripts/docs/ablation.py variants data.path=<folder>     # the same command again resumes
    python scripts/docs/ablation.py variants --runs runs/variants   # only the page, from runs that are there

Further words are overrides of the experiment. What stands below "Limits" in an existing page is kept: it is for
your own words. The exit code is that of the experiment.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from sections import row

from harness.record.files import atomic_write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "ablations"
BY_HAND = "## Limits"
TO_WRITE = "\n\nNot written yet.\n"
FAR = 4.0  # times the median above the lowest loss, where the picture ends


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
        overrides = [word for word in given.overrides if not word.startswith("runs_dir=")]
        words = ("-m", f"experiment={given.name}", *scale, *overrides, f"runs_dir={runs_dir.absolute()}")
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
    given.to.mkdir(parents=True, exist_ok=True)
    picture(_group(report), arms_of(given.name)).savefig(given.to / f"{given.name}.svg", metadata={"Date": None})
    atomic_write_text(page, "\n".join(lines_of(given.name, report)) + "\n" + BY_HAND + (kept or TO_WRITE))
    print(f"{page}: {report['shapes'][0]['verdict']}")
    return 0


def lines_of(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """The page above what is written by hand: question, command, picture, answer."""
    shape, group = report["shapes"][0], _group(report)
    yield from (f"# {shape['claim']}", "")
    yield from (f"Source: {shape['source']}. As published: {shape['figures']}.", "")
    yield from (*(f"    {_repeatable(command)}" for command in report["commands"]), "")
    yield from (f"![Loss of each arm]({name}.svg)", "")
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


def arms_of(name: str) -> dict[str, list[str]]:
    """The arms of an experiment, each with its overrides."""
    file = ROOT / "conf" / "experiment" / f"{name}.yaml"
    paper = yaml.safe_load(file.read_text(encoding="utf-8"))["paper"] if file.is_file() else {}
    return {arm: shlex.split(text) for arm, text in paper.get("arms", {}).items()}


def label_of(configuration: Mapping[str, Any], arms: Mapping[str, Sequence[str]]) -> str:
    """The arm of the configuration, with the settings that no arm sets; without an arm, method and settings."""
    words = set(_plain(configuration["cells"][0]).split()) if configuration.get("cells") else set()
    fitting = [arm for arm, overrides in arms.items() if words.issuperset(map(_plain, overrides))]
    if not fitting:
        return f"{configuration['method']} {configuration['setting']}".strip()
    of_arms = {word.partition("=")[0].rpartition(".")[2] for overrides in arms.values() for word in overrides}
    own = [
        word for word in configuration["setting"].split() if word.partition("=")[0].rpartition(".")[2] not in of_arms
    ]
    return " ".join([max(fitting, key=lambda arm: len(arms[arm])), *own])


def _plain(override: str) -> str:
    """Without the signs that quote it, which differ between an experiment's file and a cell."""
    return override.translate(str.maketrans("", "", "\\'\"")).lower()


def _key(word: str) -> str:
    """The last part of an override's key."""
    return word.partition("=")[0].rpartition(".")[2]


def picture(group: Mapping[str, Any], arms: Mapping[str, Sequence[str]]) -> "Figure":
    """Losses with their intervals over seeds: a line over the learning rates for each setting, or one row for each
    setting if all have one rate."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ablation"})
    curves: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for each in group["configurations"]:
        score = each["scores"].get("loss")
        if each["learning_rate"] and score and score["mean"] is not None:
            curves.setdefault(label_of(each, arms), []).append((each["learning_rate"], score))
    if not curves:
        sys.exit("no finished run has a loss, so that there is nothing to show")
    by_rate = any(len(curve) > 1 for curve in curves.values())
    figure = Figure(figsize=(8, 4.2 if by_rate else 1 + 0.4 * len(curves)), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    if by_rate:
        _draw_by_rate(axes, curves)
    else:
        _draw_rows(axes, {label: curve[0][1] for label, curve in curves.items()})
    return figure


def _draw_by_rate(axes: "Axes", curves: Mapping[str, list[tuple[float, Mapping[str, Any]]]]) -> None:
    for label, curve in curves.items():
        curve.sort(key=lambda point: point[0])
        rates, scores = zip(*curve, strict=True)
        axes.errorbar(rates, [each["mean"] for each in scores], _bars(scores), label=label, marker="o", markersize=4)
    losses = [score["mean"] for curve in curves.values() for _, score in curve]
    lowest, middle = min(losses), statistics.median(losses)
    if (top := lowest + FAR * (middle - lowest)) > lowest:
        # Runs that diverge leave the picture at its upper edge, so that the others can be told apart.
        axes.set_ylim(top=min(top, max(losses)) + 0.05 * (top - lowest), bottom=lowest - 0.05 * (top - lowest))
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _draw_rows(axes: "Axes", scores: Mapping[str, Mapping[str, Any]]) -> None:
    for height, score in enumerate(scores.values()):
        axes.errorbar([score["mean"]], [height], xerr=_bars([score]), marker="o", color="C0")
    axes.margins(y=0.5 / len(scores))
    axes.set(xlabel="loss", yticks=range(len(scores)), yticklabels=list(scores))
    axes.invert_yaxis()


def _bars(scores: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """How far each interval reaches below and above its mean; nothing where one seed gives no interval."""
    below = [score["mean"] - score["low"] if score["low"] is not None else 0.0 for score in scores]
    above = [score["high"] - score["mean"] if score["high"] is not None else 0.0 for score in scores]
    return [below, above]


def _repeatable(command: str) -> str:
    """The command without the places of this machine."""
    words = [word for word in command.split(" ") if not word.startswith("runs_dir=")]
    return " ".join("data.path=<folder>" if word.startswith("data.path=") else word for word in words)


def _group(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The runs that the first verdict is about."""
    groups: Sequence[Mapping[str, Any]] = report["groups"]
    return next((each for each in groups if each["key"] == report["shapes"][0]["group"]), groups[0])


def _verdict(verdict: str) -> str:
    return "Underpowered: these runs cannot tell." if verdict == "underpowered" else f"The shape {verdict}."


if __name__ == "__main__":
    sys.exit(main())
