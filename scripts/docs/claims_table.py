"""Write the judged claims of docs/claims.md from their claim.json, and keep the latter.

    python scripts/docs/claims_table.py                             # rewrites the section from docs/results/claims/
    python scripts/docs/claims_table.py --check                     # writes nothing, exits with 1 if it is stale
    python scripts/docs/claims_table.py --take runs/claims/a runs/claims/b   # keeps these results first

What is kept of a claim.json has no paths.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sections import row, update

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "claims"
KEPT = ("verdict", "estimate", "interval", "sd", "pairs", "cost", "claim", "setting", "arms", "runs", "paragraph")


def main() -> int:
    """Keep what ``--take`` names, then rewrite the section, or report that it is stale."""
    if "--take" in sys.argv:
        at = sys.argv.index("--take")
        for folder in map(Path, sys.argv[at + 1 :]):
            keep(folder)
        del sys.argv[at:]
    judged = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    return update(ROOT, [("docs/claims.md", "judged", lines(judged))], "scripts/docs/claims_table.py", __doc__)


def keep(folder: Path) -> None:
    """Copy what the page needs of a claim's result."""
    found = json.loads((folder / "claim.json").read_text(encoding="utf-8"))
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: found[name] for name in KEPT if name in found}, ensure_ascii=False, indent=1)
    (RESULTS / f"{folder.name}.json").write_text(text + "\n", encoding="utf-8")


def lines(judged: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each claim, then their paragraphs."""
    if not judged:
        yield "None has been judged yet."
        return
    yield row("claim", "verdict", "mean difference", "confidence sequence", "pairs", "runs", "minutes")
    yield row("---", "---", "--:", "--:", "--:", "--:", "--:")
    for each in judged:
        low, high = each["interval"] or (None, None)
        yield row(
            f"`{each['claim']['text']}`",
            f"**{each['verdict']}**",
            f"{each['estimate']:+.4f}",
            "-" if low is None else f"{low:+.4f} to {high:+.4f}",
            str(each["pairs"]),
            str(each["cost"]["runs"]),
            f"{each['cost']['seconds'] / 60:.0f}",
        )
    for each in judged:
        yield ""
        yield f"> {each['paragraph']}"


if __name__ == "__main__":
    sys.exit(main())
