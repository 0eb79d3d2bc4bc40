#!/usr/bin/env python
"""Find each method's best learning rate on a model and a data set, and keep what was measured.

    python scripts/bench/learning_rates.py --model smollm2_135m --data e2e --path <folder> --name e2e
    python scripts/bench/learning_rates.py --model smollm2_135m --data e2e --path <folder> --name e2e --fresh 1
    python scripts/bench/learning_rates.py --model smollm2_135m --data e2e --path <folder> --name e2e --survey 0,1,2

For every method it runs the rule's rate and half-decade steps around it, widened until the best rate is inside the
grid, with the validation split as the judge. ``--fresh`` then runs the best rate and the rule's once more with these
seeds, because the best of several noisy losses looks better than it is. With ``--survey`` it runs every method at its
defaults with these seeds, and scores on the test split. Runs are ordinary runs of the harness: stopped, the same
command resumes.

The last line of each result goes to ``docs/results/<model>-<name>.jsonl.gz``, without rows and answers, from which
``scripts/docs/learning_rates.py`` writes ``docs/learning_rates.md``.
"""

import argparse
import gzip
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SURVEY = (
    *("full", "partial", "prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2", "adapter"),
    *("lora", "loha", "lokr", "adalora", "ia3", "bitfit", "diff_pruning"),
)
HALF_DECADE = math.sqrt(10)
GRID = ("scoring.split=validation", "trainer.evaluations=0", "trainer.keep_best=false")  # the scores judge
WIDEST = 4  # half-decades from the rule in either direction


def main() -> None:
    arguments = parsed()
    runs = Path(arguments.runs)
    if arguments.survey:
        take_survey(arguments, runs)
        return
    if arguments.fresh:
        take_fresh(arguments, runs)
        return
    for method in arguments.methods.split(","):
        losses: dict[int, float] = {}  # by half-decades from the rule
        center = rule(arguments, method)
        wanted = [-1, 0, 1]
        while wanted:
            rates = {step: float(f"{center * HALF_DECADE**step:.2g}") for step in wanted}
            found = losses_of(arguments, runs, method, list(rates.values()))
            losses |= {step: found[rate] for step, rate in rates.items()}
            best = min(losses, key=lambda step: losses[step])
            shown = "  ".join(f"{step:+d}: {loss:.4f}" for step, loss in sorted(losses.items()))
            print(f"{method}: {shown}", flush=True)
            wanted = [step for step in (best - 1, best + 1) if step not in losses and abs(step) <= WIDEST]
        keep(arguments, runs)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="option of conf/model/")
    parser.add_argument("--data", default="alpaca", help="option of conf/data/")
    parser.add_argument("--path", help="data.path")
    parser.add_argument("--name", required=True, help="of the data set, in file names and tables")
    parser.add_argument("--methods", default=",".join(SURVEY))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4, help="per step")
    parser.add_argument("--validation", type=int, default=16, help="rows")
    parser.add_argument("--test", type=int, default=32, help="rows, of the survey")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survey", metavar="SEEDS", help="run every method at its defaults instead, with these seeds")
    parser.add_argument("--fresh", metavar="SEEDS", help="run the best rate and the rule's with these seeds instead")
    parser.add_argument("--runs", default="runs/learning_rates", help="runs_dir")
    parser.add_argument("overrides", nargs="*", help="further overrides, e.g. model.dtype=bfloat16")
    return parser.parse_args()


def take_survey(arguments: argparse.Namespace, runs: Path) -> None:
    """Every method at its defaults; the records of all runs of ``runs`` are kept."""
    words = [
        *(word for word in settings(arguments, arguments.methods) if not word.startswith("seed=")),
        *(f"seed={arguments.survey}", f"data.limits.test={arguments.test}", "bitfit.add_missing=true"),
        "trainer.evaluations=1",
    ]
    subprocess.run([sys.executable, "-m", "harness", "-m", *words, f"runs_dir={runs}"], cwd=ROOT, check=True)
    keep(arguments, runs, prefix="survey-")


def take_fresh(arguments: argparse.Namespace, runs: Path) -> None:
    """The best rate of each method and the rule's, where they differ, with fresh seeds."""
    for method in arguments.methods.split(","):
        tried = [
            (record["scores"]["after"]["loss"], record["plan"]["learning_rate"])
            for record in records(runs)
            if is_of(record, method, arguments)
        ]
        if not tried:
            continue
        best, ours = min(tried)[1], rule(arguments, method)
        rates = [best, ours] if best != ours else []
        for seed in map(int, arguments.fresh.split(",")):
            losses = losses_of(argparse.Namespace(**vars(arguments) | {"seed": seed}), runs, method, rates)
            print(f"{method}, seed {seed}: " + "  ".join(f"{rate:g}: {loss:.4f}" for rate, loss in losses.items()))
        keep(arguments, runs)


def losses_of(arguments: argparse.Namespace, runs: Path, method: str, rates: Sequence[float]) -> dict[float, float]:
    """Validation loss after training at each rate; infinite where the run failed."""
    missing = [rate for rate in rates if finished(runs, method, rate, arguments) is None]
    if missing:
        words = [*settings(arguments, method), *GRID, "trainer.learning_rate=" + ",".join(map(str, missing))]
        command = [sys.executable, "-m", "harness", "-m", *words, f"runs_dir={runs}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            print(f"{method}: {done.stderr.strip()[-2000:]}", file=sys.stderr)
    found = {rate: finished(runs, method, rate, arguments) for rate in rates}
    return {rate: float(record["scores"]["after"]["loss"]) if record else math.inf for rate, record in found.items()}


def settings(arguments: argparse.Namespace, method: str) -> list[str]:
    """Overrides of one run, without the learning rate."""
    path = [f"data.path={arguments.path}"] if arguments.path else []
    biases = ["bitfit.add_missing=true"] if method == "bitfit" else []
    return [
        *(f"model={arguments.model}", f"data={arguments.data}", *path, f"peft={method}", *biases),
        *(f"trainer.max_steps={arguments.steps}", f"trainer.batch_size={arguments.rows}"),
        *(f"data.limits.train={arguments.steps * arguments.rows}", f"data.limits.validation={arguments.validation}"),
        *("scoring.metrics=[]", "scoring.forgetting=null", "scoring.loss_batch_size=8", "keep=record"),
        *(f"seed={arguments.seed}", *arguments.overrides),
    ]


def rule(arguments: argparse.Namespace, method: str) -> float:
    """The rate that the method's rule gives for these runs."""
    sys.path.insert(0, str(ROOT))
    from plans import read_plan

    plan, _ = read_plan([*settings(arguments, method), "stage=plan"])
    return float(plan.learning_rate)


def finished(runs: Path, method: str, rate: float, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The finished record of this run, if there is one."""
    for record in records(runs):
        if is_of(record, method, arguments) and record["plan"]["learning_rate"] == rate:
            return record
    return None


def is_of(record: dict[str, Any], method: str, arguments: argparse.Namespace) -> bool:
    """Whether this is a finished run of the method with this seed, on this model and data."""
    same = (record["method"], record["plan"]["model"]["name"]) == (method, arguments.model)
    seed = record["plan"]["seed"] == arguments.seed
    return same and seed and record["status"] == "finished" and named(record, arguments)


def named(record: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether the record is of this data set."""
    return arguments.path is None or record["plan"]["data"]["path"] == arguments.path


def records(runs: Path) -> Iterable[dict[str, Any]]:
    """All records of the folder."""
    for file in sorted(runs.glob("*/record.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def keep(arguments: argparse.Namespace, runs: Path, prefix: str = "") -> None:
    """Write the slim records of this model and data set."""
    target = ROOT / "docs" / "results" / f"{prefix}{arguments.model}-{arguments.name}.jsonl.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with gzip.open(partial, "wt", encoding="utf-8") as file:
        for record in records(runs):
            if record["plan"]["model"]["name"] == arguments.model and named(record, arguments):
                file.write(json.dumps(slim(record, arguments.name), ensure_ascii=False) + "\n")
    os.replace(partial, target)
    print(f"wrote {target.relative_to(ROOT)}")


def slim(record: dict[str, Any], name: str) -> dict[str, Any]:
    """What the page needs: settings, costs and losses; no rows, no answers, no paths, no host."""
    plan = record["plan"]
    return {
        "fingerprint": record["fingerprint"],
        "status": record["status"],
        "method": record["method"],
        "settings": plan["settings"],
        "learning_rate": plan["learning_rate"],
        "model": plan["model"]["name"],
        "data": name,
        "seed": plan["seed"],
        "optimizer_steps": record["training"].get("optimizer_steps"),
        "rows_per_step": record["inferred"].get("rows_per_step"),
        "rows": record["rows"],
        "dtype": record["inferred"].get("dtype"),
        "scores": {when: record["scores"][when] for when in ("before", "after")},
        "validation": record["training"].get("validation"),
        "parameters": record["parameters"],
        "times_s": record["times_s"],
        "tokens_per_s": record["training"].get("tokens_per_s"),
        "memory_bytes": record["memory_bytes"],
        "versions": record["versions"],
        "code": record["code"]["version"],
        "cpu": record["device"].get("cpu"),
    }


if __name__ == "__main__":
    main()
