#!/usr/bin/env python
"""What a busy neighbor costs: training with and without another busy process, by threads and by how threads wait.

    python scripts/bench/neighbor.py                       # on a quiet machine; a quarter of an hour on 2 cores
    python scripts/bench/neighbor.py --neighbors 1 --rounds 3 --steps 60 --out neighbor.json

Every case is a command of its own, ``python -m harness`` on the embedded model, because how threads wait is settled
when torch is imported. Cases are interleaved, and the figures are medians over the rounds. The cases:

- *chosen*: as the harness chooses, threads and how they wait;
- *one*, *all*: one thread, or one per core, that wait as the harness sets them (``OMP_WAIT_POLICY=PASSIVE``, a short
  spin);
- *all, spinning*: one per core, waiting as OpenMP does by itself.

A neighbor that comes after the start finds the number of threads chosen: *surprised* is *chosen* on a quiet machine
with a neighbor that begins with the training. The loss of a case is its speed without neighbors over that with them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runtime import threads

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("scoring.metrics=[]", "scoring.forgetting=null", "trainer.evaluations=0", "trainer.keep_best=false")
SPINNING = {"OMP_WAIT_POLICY": "ACTIVE"}
LIMIT = 2.0  # what a neighbor may cost


@dataclass(frozen=True)
class Case:
    """How a training computes."""

    name: str
    threads: int | None  # None: the harness's choice
    environment: dict[str, str]
    late: bool = False  # whether the neighbors begin with the training, not before the command


def cases(cores: int) -> list[Case]:
    return [
        Case("chosen", None, {}),
        Case("surprised", None, {}, late=True),
        Case("one", 1, {}),
        Case("all", cores, {}),
        Case("all, spinning", cores, SPINNING),
    ]


def main() -> None:
    arguments = parsed()
    cores = int(threads.usable_cores())
    speeds: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for number in range(arguments.rounds):
        for case in cases(cores):
            for busy in (False, True):
                measured = measure(case, arguments.neighbors or cores - 1 or 1 if busy else 0, arguments.steps)
                speeds.setdefault((case.name, busy), []).append(measured)
                where = "with neighbors" if busy else "quiet"
                print(f"round {number + 1}: {case.name}, {where}: {measured['tokens_per_s']:.0f} tokens/s, "
                      f"{measured['threads']} threads", file=sys.stderr, flush=True)  # fmt: skip
    rows = summary(speeds)
    print("\n".join(table(rows)))
    print("\n".join(verdicts(rows)))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbors", type=int, help="busy processes; default: one less than there are cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of each training")
    parser.add_argument("--out", help="file for the figures as JSON")
    return parser.parse_args()


def measure(case: Case, neighbors: int, steps: int) -> dict[str, Any]:
    """Speed and threads of one training, from its record."""
    folder = Path(tempfile.mkdtemp(prefix="neighbor"))
    chosen = [] if case.threads is None else [f"trainer.threads={case.threads}"]
    words = [sys.executable, "-m", "harness", *SMALL, f"trainer.max_steps={steps}", f"runs_dir={folder}", *chosen]
    variables = {name: value for name, value in os.environ.items() if name not in (threads.GIVEN, *threads.WAIT_POLICY)}
    try:
        with busy(0 if case.late else neighbors):
            with open(folder / "log", "w", encoding="utf-8") as log:
                command = subprocess.Popen(words, cwd=ROOT, env=variables | case.environment, stdout=log, stderr=log)
            with busy(neighbors if case.late and training_began(command, folder) else 0):
                command.wait()
        [file] = folder.glob("*/record.json")
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["status"] != "finished":
            sys.exit((folder / "log").read_text(encoding="utf-8"))
        return {"tokens_per_s": record["training"]["tokens_per_s"], "threads": record["device"]["threads"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def training_began(command: "subprocess.Popen[bytes]", folder: Path) -> bool:
    """Wait for the first step; False if the command ended before it was seen."""
    while command.poll() is None:
        for file in folder.glob("*/progress.json"):
            try:
                if json.loads(file.read_text(encoding="utf-8"))["state"] == "training":
                    return True
            except (OSError, ValueError):
                pass  # being replaced
        time.sleep(0.02)
    return False


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def summary(speeds: dict[tuple[str, bool], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Medians and spreads by case, and what neighbors cost."""
    rows = []
    for name in dict.fromkeys(case for case, _ in speeds):
        row: dict[str, Any] = {"case": name}
        for busy_now, key in ((False, "quiet"), (True, "busy")):
            found = [each["tokens_per_s"] for each in speeds[name, busy_now]]
            row |= {key: statistics.median(found), f"{key}_low": min(found), f"{key}_high": max(found)}
            row[f"{key}_threads"] = sorted({each["threads"] for each in speeds[name, busy_now]})
        row["cost"] = row["quiet"] / row["busy"]
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The figures as Markdown."""
    yield "| case | threads, quiet | tokens/s, quiet | threads, with neighbors | tokens/s, with neighbors | cost |"
    yield "| --- | --: | --: | --: | --: | --: |"
    for row in rows:
        parts = [row["case"]]
        for key in ("quiet", "busy"):
            parts.append(", ".join(map(str, row[f"{key}_threads"])))
            parts.append(f"{row[key]:.0f} ({row[f'{key}_low']:.0f} to {row[f'{key}_high']:.0f})")
        yield f"| {' | '.join(parts)} | {row['cost']:.2f} |"


def verdicts(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Whether neighbors cost what they may."""
    for row in rows:
        if row["case"] in ("chosen", "surprised"):
            word = "below" if row["cost"] < LIMIT else "not below"
            yield f"{row['case']}: neighbors cost a factor of {row['cost']:.2f}, {word} {LIMIT:g}"


if __name__ == "__main__":
    main()
