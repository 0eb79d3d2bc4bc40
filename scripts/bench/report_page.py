#!/usr/bin/env python
"""How long a report of many runs takes to write and to open, with Debian's Chromium.

    python scripts/bench/report_page.py --runs-dir runs           # the runs there, multiplied to 1,000
    python scripts/bench/report_page.py --runs-dir runs --count 100 --count 1000 --rounds 7

Prints the median, the fastest and the slowest of several openings: from the request of the page until its tables can be
sorted. Run it on a quiet machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.report.build import Request, build_report
from harness.report.choose import read_runs
from harness.report.formats.html import to_html
from harness.report.model import Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--count", type=int, action="append", help="runs of the page; may be given several times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    found = read_runs([arguments.runs_dir.absolute()], "runs_dir")
    report = build_report(found, Request(chosen="all", command="-"))
    with tempfile.TemporaryDirectory() as folder, browser(arguments.browser) as opening:
        for count in arguments.count or [1000]:
            started = time.perf_counter()
            text = to_html(multiplied(report, count))
            written = time.perf_counter() - started
            file = Path(folder) / f"{count}.html"
            file.write_text(text, encoding="utf-8")
            times = [opening(file) for _ in range(arguments.rounds)]
            spread = (
                f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}, {arguments.rounds} rounds)"
            )
            print(f"{count} runs: made in {written:.2f} s, {len(text) / 2**20:.1f} MiB, opens in {spread}")


def multiplied(report: Report, count: int) -> Report:
    """The first group with its configurations and runs so many times, under other names."""
    group = report.groups[0]
    rows, runs = [], []
    by_name = {run.fingerprint: run for run in group.runs}
    for number in range(count):
        row = group.configurations[number % len(group.configurations)]
        key = f"{number:012x}"
        run = by_name[row.runs[0]]
        rows.append(replace(row, key=key, number=number + 1, runs=(key,), seeds=(0,)))
        runs.append(replace(run, fingerprint=key, configuration=key))
    axes = tuple(replace(axis, lines=()) for axis in group.axes)
    many = replace(group, configurations=tuple(rows), runs=tuple(runs), axes=axes, comparisons=())
    return replace(report, groups=(many,), failures=())


@contextmanager
def browser(executable: str) -> Iterator[Callable[[Path], float]]:
    """A browser without a network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        context = started.new_context(viewport={"width": 1300, "height": 900}, offline=True)

        def opening(file: Path) -> float:
            page = context.new_page()
            began = time.perf_counter()
            page.goto(file.resolve().as_uri(), wait_until="commit")
            while not page.evaluate("document.documentElement.dataset.ready === 'true'"):  # the page forbids eval
                time.sleep(0.01)
            took = time.perf_counter() - began
            page.close()
            return took

        yield opening
        started.close()


if __name__ == "__main__":
    main()
