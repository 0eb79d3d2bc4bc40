"""Measure what thousands of runs cost: composing cells, writing and listing records, locks, the table.

    python scripts/bench/scale.py                               # 10,000 records in a temporary folder
    python scripts/bench/scale.py --runs 1000 --folder /mnt/nfs   # fewer, on another file system

Creates synthetic records of realistic size, with curves, and times each operation on this machine. Then it simulates
64 nodes that share a file server; see ``simulate``.
"""

import argparse
import json
import logging
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from harness.config.compose import Composer, register_schema
from harness.plan.read import read_config
from harness.record import locks, store
from harness.report.cells import cells_from_records
from harness.report.table import build_table
from harness.shipped import shipped_folder

METHODS = ("lora", "ia3", "adalora", "bitfit")
POINTS = 50  # per training curve


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to create the temporary folder of records")
    parser.add_argument("--repeats", type=int, default=3, help="timings are medians over this many repeats")
    chosen = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    measure_composition(chosen.repeats)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        measure_records(Path(folder), chosen.runs, chosen.repeats)
    print("\nsimulated: 64 nodes and a shared file server that handles the given metadata operations per second (op/s)")
    for runs, minutes in ((10_000, 10.0), (10_000, 1.0), (100_000, 10.0)):
        for rate in (500.0, 5_000.0):
            print(simulate(runs, nodes=64, run_s=60 * minutes, rate=rate))


# --- measured ---------------------------------------------------------------------------------------------


def measure_composition(repeats: int, cells: int = 200) -> None:
    """Print how long it takes to compose and read the cells of a grid before the first run."""
    register_schema()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    command = loader.load_configuration("config", [], RunMode.MULTIRUN)
    composer = Composer(loader, command)
    grid = [(f"peft={method}", f"seed={seed}") for method in METHODS for seed in range(cells // len(METHODS))]
    print(f"{cells} cells, {len(METHODS)} methods")
    timed("compose and read", lambda: [read_config(composer.own(overrides)) for overrides in grid], repeats)
    few = grid[:: max(1, len(grid) // 20)]
    timed(f"Hydra alone ({len(few)})", lambda: [loader.load_sweep_config(command, [*each]) for each in few], 1)


def measure_records(runs_dir: Path, runs: int, repeats: int) -> None:
    """Print how long it takes to write, list, tabulate and lock ``runs`` records."""
    start = time.perf_counter()
    fingerprints = write_records(runs_dir, runs)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in runs_dir.glob("*/record.json"))
    print(f"{runs} records of {size / runs / 1024:.1f} KiB, {POINTS} curve points each")
    print(f"  write one by one      {seconds:8.2f} s   {1e3 * seconds / runs:.2f} ms each")
    cells = cells_from_records(store.all_records(runs_dir, curves=False))
    records = {kept["fingerprint"]: kept for kept in store.all_records(runs_dir, curves=False)}
    timed(f"list ({runs})", lambda: store.all_records(runs_dir, curves=False), repeats)
    timed("cells of the table", lambda: cells_from_records(list(records.values())), repeats)
    timed("table of the cells", lambda: build_table(cells, records), repeats)
    timed("look up each run", lambda: [store.read_record(runs_dir, each) for each in fingerprints], repeats)
    some = fingerprints[:1000]
    timed("take, release locks", lambda: [locks.take_lock(runs_dir / each).release() for each in some], repeats)
    print(f"    (for {len(some)} of the runs)")


def timed(name: str, action: Callable[[], Any], repeats: int) -> None:
    """Print the median wall time and the median CPU time of this process."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"  {name:22}{statistics.median(walls):8.2f} s   {statistics.median(cpus):.2f} s CPU")


def write_records(runs_dir: Path, runs: int) -> list[str]:
    """Write finished records like those of a sweep over methods, ranks and seeds."""
    random.seed(0)
    template = store.start_record(runs_dir, "template", "lora", {}, {"seed": 0}).as_dict()
    (runs_dir / "template" / "record.json").unlink()
    (runs_dir / "template").rmdir()
    fingerprints = [f"{number:012x}" for number in range(runs)]
    for number, fingerprint in enumerate(fingerprints):
        kept = json.loads(json.dumps(template)) | {"fingerprint": fingerprint, "method": METHODS[number % 4]}
        plan = {"method": kept["method"], "settings": {"r": 4 + number % 8}, "learning_rate": 1e-3, "seed": number % 5}
        losses = [3 * math.exp(-point / 20) for point in range(POINTS)]
        curve = [{"step": s, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0} for s, loss in enumerate(losses)]
        kept |= {
            "plan": plan,
            "parameters": {"trainable": 10**5 + number, "total": 10**7, "share": 0.01, "stored": 10**5},
            "times_s": {"load": 1.0, "tokenize": 0.5, "score_before": 2.0, "train": 60.0, "score_after": 2.0},
            "training": {"optimizer_steps": 300, "tokens": 10**5, "tokens_per_s": 5e3, "best_step": 300},
            "scores": {"before": scores(), "after": scores(), "signatures": {}},
        }
        kept["training"] |= {"curve": curve, "validation": [{"step": 300, "loss": losses[-1]}]}
        store.write_record(runs_dir, kept | {"status": "finished", "finished": kept["started"]})
    return fingerprints


def scores() -> dict[str, float]:
    """Scores in a realistic range."""
    return {"loss": random.random(), "rouge_l": 100 * random.random(), "bleu": 100 * random.random()}


# --- simulated --------------------------------------------------------------------------------------------

# Metadata operations in the run's folder (open, stat, rename, mkdir, unlink, utime), counted with strace over runs of
# the embedded model: per run (lock, record, adapter, predictions, last checkpoint) and per second of training (3 every
# 15 s for the heartbeat, 2 every 1.5 s for the progress file, 25 every 5 minutes for a checkpoint).
PER_RUN = 150
PER_SECOND = 3 / 15 + 2 / 1.5 + 25 / 300
LOOKUP = 2  # operations to see that another process is running or has finished a plan


def simulate(runs: int, nodes: int, run_s: float, rate: float) -> str:
    """One line of results for ``nodes`` processes that all start on the whole list of plans at the same moment.

    Every process walks the list in the same order and runs the first plan that no other process holds. The file
    server handles ``rate`` operations per second, first come, first served; excess requests wait.
    """
    free_at = [0.0] * nodes  # seconds
    seen = [0] * nodes  # plans that the process has already passed
    taken, requested, waited = 0, 0.0, 0.0
    server_free_at = 0.0  # when the server has handled every request so far
    noise = random.Random(0)
    while taken < runs:
        node = min(range(nodes), key=free_at.__getitem__)
        passed = taken - seen[node]  # started by other processes since; each costs a lookup
        operations = LOOKUP * passed + PER_RUN
        served_from = max(free_at[node], server_free_at)
        server_free_at = served_from + operations / rate
        waited += served_from - free_at[node]
        seen[node], taken, requested = taken + 1, taken + 1, requested + operations
        free_at[node] = server_free_at + run_s * noise.uniform(0.8, 1.2)
    total_s = max(free_at)
    steady = nodes * PER_SECOND
    ideal_s = math.ceil(runs / nodes) * run_s
    return (
        f"  {runs:>7} runs of {run_s / 60:g} min, {rate:g} op/s: {total_s / 3600:6.1f} h, {total_s / ideal_s - 1:+.1%} "
        f"against ideal; {requested / 1e6:.1f} M operations to start and end runs, {waited / runs:.2f} s wait per run; "
        f"{steady:.0f} op/s while training"
    )


if __name__ == "__main__":
    main()
