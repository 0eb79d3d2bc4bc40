"""Write the embedded medicine questions, and pairs of answers to them, from their hand-written sources.

    python scripts/embedded/make_data.py            # rewrites *.jsonl of data/medicine and data/medicine_preference
    python scripts/embedded/make_data.py --check    # writes nothing, exits with 1 if a file is stale

Sources: data/medicine/lexicon.yaml (complaints in everyday words, per split), medicines.yaml (what each
medicine treats) and frames.yaml (sentence templates, per split). Every row names enough complaints that exactly one
medicine treats all of them. Seeded: the same sources give the same bytes.
"""

import argparse
import itertools
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

MEDICINE = Path(__file__).resolve().parents[2] / "data" / "medicine"
PREFERENCE = MEDICINE.with_name("medicine_preference")
PAIRS = {"train": 2, "validation": 1, "test": 1}  # of answers per medicine
SPLITS = {"train": 11, "validation": 2, "test": 3}  # rows per medicine
SIZES = (2, 3, 3, 4)  # complaints per row, in turn; fewer if the medicine treats fewer
SEED = 2024

Row = dict[str, str]


def load(name: str) -> dict[str, Any]:
    """One hand-written source in data/medicine, by its name without the ending."""
    return yaml.safe_load((MEDICINE / f"{name}.yaml").read_text(encoding="utf-8"))


def identifying(name: str, medicines: dict[str, Any]) -> list[tuple[str, ...]]:
    """Sets of 2 to 4 complaints that only this medicine treats completely.

    Raises ValueError if there is none, because then no question could identify the medicine.
    """
    others = [set(entry["uses"]) for other, entry in medicines.items() if other != name]
    uses = medicines[name]["uses"]
    found = [
        subset
        for size in range(2, min(4, len(uses)) + 1)
        for subset in itertools.combinations(uses, size)
        if not any(set(subset) <= other for other in others)
    ]
    if not found:
        raise ValueError(f"medicines.yaml: {name} shares its uses {uses} with another medicine; add a use")
    return found


class Turns:
    """Deals the items of each list evenly: every item once, in shuffled order, before any item repeats."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.left: dict[Any, list[Any]] = {}

    def deal(self, key: Any, items: list[Any]) -> Any:
        """The next item of the list that `key` names."""
        if not self.left.get(key):
            self.left[key] = self.rng.sample(items, len(items))
        return self.left[key].pop()


def compose(split: str, rng: random.Random) -> list[Row]:
    """All rows of one split, in shuffled order."""
    lexicon, medicines, frames = load("lexicon"), load("medicines"), load("frames")
    parts, turns = frames[split], Turns(rng)
    rows: list[Row] = []
    for name, entry in medicines.items():
        subsets, seen = identifying(name, medicines), set[str]()
        while len(seen) < SPLITS[split]:
            size = SIZES[len(seen) % len(SIZES)]
            # The size nearest to the wanted one that identifies the medicine.
            nearest = min({len(subset) for subset in subsets}, key=lambda n: abs(n - size))
            fitting = [subset for subset in subsets if len(subset) == nearest]
            subset = turns.deal((name, nearest), fitting)
            words = [turns.deal(use, lexicon[use][split]) for use in rng.sample(subset, nearest)]
            opening = turns.deal(("open", entry["who"]), parts["open"][entry["who"]])
            joined = rng.choice(parts["join"][nearest]).format(*words)
            complaint = opening + joined + rng.choice(parts["close"])
            if complaint not in seen:
                seen.add(complaint)
                answer = frames["output"].format(name=name, function=entry["function"])
                rows.append(
                    {
                        "instruction": frames["instruction"],
                        "input": complaint,
                        "output": answer,
                        "medicine": name,
                    }
                )
    rng.shuffle(rows)
    return rows


def rendered() -> dict[Path, str]:
    """Path and text of every file that this script writes."""
    files = {}
    for offset, split in enumerate(SPLITS):
        rows = compose(split, random.Random(SEED + offset))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files[MEDICINE / f"{split}.jsonl"] = text
        pairs = preferences(rows, PAIRS[split], random.Random(SEED + offset))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pairs)
        files[PREFERENCE / f"{split}.jsonl"] = text
    return files


def preferences(rows: list[Row], per_medicine: int, rng: random.Random) -> list[Row]:
    """The first rows of each medicine as pairs: its answer is chosen, that of another medicine is rejected."""
    answers = {row["medicine"]: row["output"] for row in rows}
    counts: Counter[str] = Counter()
    pairs = []
    for row in rows:
        counts[row["medicine"]] += 1
        if counts[row["medicine"]] <= per_medicine:
            other = rng.choice([name for name in answers if name != row["medicine"]])
            asked = {key: row[key] for key in ("instruction", "input")}
            pairs.append({**asked, "chosen": row["output"], "rejected": answers[other], "medicine": row["medicine"]})
    return pairs


def main() -> int:
    """Write the files, or compare them with the committed ones; returns 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    check = parser.parse_args().check
    stale = []
    for path, text in rendered().items():
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: {text.count(chr(10))} rows")
    if stale:
        print(f"stale: {', '.join(stale)}; run python scripts/embedded/make_data.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
