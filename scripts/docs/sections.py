"""Sections of Markdown pages between two markers, which the scripts beside this file write from the code."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path


def update(root: Path, sections: Iterable[tuple[str, str, Iterable[str]]], script: str, description: str | None) -> int:
    """Rewrite the sections, or with ``--check`` report which are stale; returns the exit status.

    Args:
        sections: the page relative to ``root``, the name in the markers, and the lines between them.
        script: what to type to rewrite them.
        description: for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a section is stale")
    check = parser.parse_args().check
    stale = False
    for name, marker, lines in sections:
        path = root / name
        old = path.read_text(encoding="utf-8")
        new = between(old, marker, "\n".join(lines))
        if new == old:
            continue
        stale = True
        if check:
            print(f"{name} is stale; run python {script}", file=sys.stderr)
        else:
            path.write_text(new, encoding="utf-8")
            print(f"{name} rewritten")
    return int(check and stale)


def between(text: str, marker: str, content: str) -> str:
    """The text with ``content`` between its two markers."""
    start, end = f"<!-- table:{marker} -->", f"<!-- /table:{marker} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"the page must have the markers {start} and {end} exactly once")
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


def row(*texts: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(texts)} |"
