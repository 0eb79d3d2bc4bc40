#!/usr/bin/env python
"""Measure this project against its peers on the same work, and write docs/benchmarks.md.

    python scripts/bench/peers.py                                  # everything, five rounds: a night on 2 cores
    python scripts/bench/peers.py --workloads tiny --rounds 3      # the embedded model only: a quarter of an hour
    python scripts/bench/peers.py --resume                         # go on where it was stopped
    python scripts/bench/peers.py --page                           # write the page again from what was measured

TRL, LLaMA-Factory and LitGPT get environments of their own in ``--cache`` (made at first, 4 GB). All contestants train
on the same base folder and rows with the same method, optimizer steps and rows a step, one thread each, in turn.
``docs/benchmarks.md`` says how each figure is measured. Results are kept line by line in ``--out``.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))

from peer_bench import growth, measure  # noqa: E402
from peer_bench.contestants import CONTESTANTS, USUAL  # noqa: E402
from peer_bench.page import write_page  # noqa: E402
from peer_bench.results import Results, machine  # noqa: E402
from peer_bench.workloads import WORKLOADS, Workload, missing_data  # noqa: E402

from harness.runtime.caches import cache_folder  # noqa: E402

PARTS = ("runs", "sweeps", "commands", "scoring", "growth")
TUNED_ON = "smollm2_gsm8k"  # where a target compares with tuned peers
SWEPT = ("tiny", "smollm2_e2e")
SCORED = ("tiny", "smollm2_e2e")


def main() -> None:
    """Measure, then write the page."""
    given = parsed()
    results = Results(given.out)
    if not given.page:
        refuse_to_mix(given)
        signal.signal(signal.SIGTERM, lambda *ignored: sys.exit(143))  # so that the command that is measured ends, too
        results.add("machine", **machine(ROOT))
        measure_all(measure.Bench(results, given.cache, given.data_dir), given)
    write_page(results.lines, given.write, Results(given.beside).lines)
    print(f"wrote {given.write}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=names_of(WORKLOADS), default=[*WORKLOADS], help="separated by commas")
    parser.add_argument("--peers", type=names_of(CONTESTANTS), help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--parts", type=names_of(PARTS), default=[*PARTS], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--steps", type=at_least_one, help="optimizer steps of each training, instead of a workload's")
    parser.add_argument("--resume", action="store_true", help="keep what --out has, and measure what it lacks")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared" / "data", help="of E2E and GSM8K")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "peers", help="of the environments of peers")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "peers.jsonl")
    beside = ROOT / "docs" / "results" / "peers-again.jsonl"
    parser.add_argument("--beside", type=Path, default=beside, help="results of another run, to compare verdicts with")
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "benchmarks.md")
    return parser.parse_args()


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of names separated by commas."""

    def names(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return chosen

    return names


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def refuse_to_mix(given: argparse.Namespace) -> None:
    """End before anything is measured if this system cannot, rows are absent, or results would be mixed unasked."""
    faults = missing_data([WORKLOADS[name] for name in given.workloads], given.data_dir)
    if not hasattr(os, "wait4"):
        faults.append("measuring needs Linux or macOS: Windows does not tell what an ended process took; use WSL")
    if given.out.exists() and not given.resume:
        faults.append(f"--out {given.out} exists; add --resume to measure what it lacks, or name another file")
    if faults:
        sys.exit("\n".join(faults))


def measure_all(bench: measure.Bench, given: argparse.Namespace) -> None:
    chosen = [with_steps(WORKLOADS[name], given.steps) for name in given.workloads]
    if "commands" in given.parts:
        measure.measure_commands(bench, given.rounds)
    if "runs" in given.parts:
        for work in chosen:
            measure.measure_runs(bench, work, given.peers or usual_on(work), given.rounds)
    if "scoring" in given.parts:
        for work in chosen:
            if work.name in SCORED:
                measure.measure_scoring(bench, work, given.rounds)
    if "sweeps" in given.parts:
        for work in chosen:
            if work.name in SWEPT:
                measure.measure_sweeps(bench, work, measure.fastest_peer(bench.results, work), given.rounds)
    if "growth" in given.parts:
        growth.measure_growth(bench, given.rounds)


def with_steps(work: Workload, steps: int | None) -> Workload:
    return work if steps is None else replace(work, steps=steps)


def usual_on(work: Workload) -> list[str]:
    """Everybody; where a target asks for it, tuned peers too."""
    tuned = [name for name, who in CONTESTANTS.items() if who.tuned and work.name == TUNED_ON]
    return [*USUAL, *tuned]


if __name__ == "__main__":
    main()
