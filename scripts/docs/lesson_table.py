"""Rewrite the README's table of methods from records: mean and standard deviation over seeds.

    python -m harness -m peft=full,partial,... seed=0,1,2 runs_dir=<folder>     # the full command is in the README
    python scripts/docs/lesson_table.py <folder>

Only the columns "what is trained" and "paper" are written by hand.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.record import store
from harness.record.files import atomic_write_text
from harness.scoring.catalog import SCORES

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- table:methods -->\n", "<!-- /table:methods -->"

METHODS = {
    "full": ("every weight", ""),
    "partial": ("the last two blocks; also named modules, or all norms", ""),
    "prompt_tuning": ("input embeddings before the prompt", "2104.08691"),
    "prefix_tuning": ("keys and values of every layer, through an MLP", "2101.00190"),
    "p_tuning": ("input embeddings, through an MLP or LSTM", "2103.10385"),
    "p_tuning_v2": ("keys and values of every layer", "2110.07602"),
    "adapter": ("bottleneck layers: Houlsby's; also Pfeiffer's, parallel", "1902.00751"),
    "lora": ("low-rank updates; settings make it rsLoRA, DoRA, PiSSA, EVA, ...", "2106.09685"),
    "loha": ("Hadamard products of low-rank updates (FedPara)", "2108.06098"),
    "lokr": ("Kronecker products (LyCORIS)", "2309.14859"),
    "adalora": ("low-rank updates whose ranks are pruned", "2303.10512"),
    "ia3": ("scales of keys, values and MLP activations", "2205.05638"),
    "bitfit": ("biases", "2106.10199"),
    "diff_pruning": ("a sparse difference to every weight", "2012.07463"),
}


def main() -> None:
    """Read the records in the folder named on the command line and write their table into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the runs_dir of the command")
    runs_dir = parser.parse_args().folder
    by_method: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for kept in store.all_records(runs_dir):
        by_method[kept["method"]].append(kept)
    faults = [fault for method in METHODS for fault in faults_of(method, by_method[method])]
    if faults:
        sys.exit("\n".join(faults))
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    atomic_write_text(README, before + BEGIN + table(by_method) + END + after)


def faults_of(method: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why these records make no row; a row needs finished runs of seeds 0, 1 and 2, all by the same code version."""
    done = [kept for kept in records if kept["status"] == "finished"]
    seeds = sorted(kept["plan"]["seed"] for kept in done)
    if seeds != [0, 1, 2] or len({kept["code"]["version"] for kept in done}) != 1:
        return [f"{method}: found finished runs of seeds {seeds}; needs 0, 1 and 2, all by one code version"]
    return []


def table(by_method: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The table in the order of ``METHODS``; spreads are sample standard deviations."""
    lines = [
        "| command | what is trained | paper | trainable | rate | names the medicine % | token F1 | loss |",
        "| --- | --- | --- | --: | --: | --: | --: | --: |",
    ]
    for method, (what, paper) in METHODS.items():
        kept = by_method[method]
        after = [each["scores"]["after"] for each in kept]
        link = f"[{paper}](https://arxiv.org/abs/{paper})" if paper else ""
        cells = [
            f"`peft={method}`",
            *(what, link),
            f"{kept[0]['parameters']['trainable']:,}",
            f"{kept[0]['plan']['learning_rate']:g}",
            *(
                spread([scores[name] for scores in after], SCORES[name].decimals)
                for name in ("names_target", "token_f1", "loss")
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample standard deviation: ``81.2 ± 1.4``."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
