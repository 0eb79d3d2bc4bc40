"""What thousands of runs cost the file system, the locks, the listing and the table: ``python scripts/bench_scale.py``.

Makes synthetic records (the size of real ones, with curves) in a temporary folder and measures on this machine:
writing them, listing them, the table of all, taking and releasing locks; and composing the cells of a grid.
``--runs`` and ``--folder`` change how many and where (a network file system, say). Beyond what was measured,
``--nodes`` workers are simulated over a file server that answers so many operations a second: see ``simulate``.
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
from harness.report import table
from harness.report.cells import cells_from_records
from harness.report.files import to_csv
from harness.shipped import shipped_folder

METHODS = ("lora", "ia3", "adalora", "bitfit")
POINTS = 50  # of the training curve


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="null: a temporary one")
    parser.add_argument("--repeats", type=int, default=3, help="medians are over so many")
    chosen = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    compose(chosen.repeats)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        measure(Path(place), chosen.runs, chosen.repeats)
    print("\nsimulated: 64 nodes, a shared file server of so many metadata operations a second")
    for runs, minutes in ((10_000, 10.0), (10_000, 1.0), (100_000, 10.0)):
        for rate in (500.0, 5_000.0):
            print(simulate(runs, nodes=64, run_s=60 * minutes, rate=rate))


# --- measured ---------------------------------------------------------------------------------------------


def compose(repeats: int, cells: int = 200) -> None:
    """Print what it costs to compose and read the cells of a grid before any of them runs."""
    register_schema()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    command = loader.load_configuration("config", [], RunMode.MULTIRUN)
    composer = Composer(loader, command)
    grid = [(f"peft={method}", f"seed={seed}") for method in METHODS for seed in range(cells // len(METHODS))]
    print(f"{cells} cells of {len(METHODS)} methods")
    timed("composed, read", lambda: [read_config(composer.own(overrides)) for overrides in grid], repeats)
    few = grid[:: len(grid) // 20]
    timed(f"by Hydra alone ({len(few)})", lambda: [loader.load_sweep_config(command, [*o]) for o in few], 1)


def measure(runs_dir: Path, runs: int, repeats: int) -> None:
    """Print what ``runs`` records cost here."""
    began = time.perf_counter()
    fingerprints = write_records(runs_dir, runs)
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in runs_dir.glob("*/record.json"))
    print(f"{runs} records of {size / runs / 1024:.1f} KiB, {POINTS} curve points each")
    print(f"  written one by one    {seconds:8.2f} s   {1e3 * seconds / runs:.2f} ms each")
    cells = cells_from_records(store.all_records(runs_dir, curves=False))
    records = {kept["fingerprint"]: kept for kept in store.all_records(runs_dir, curves=False)}
    timed(f"listed ({runs})", lambda: store.all_records(runs_dir, curves=False), repeats)
    timed("cells of the table", lambda: cells_from_records(list(records.values())), repeats)
    timed("table and its CSV", lambda: to_csv(table.table(cells, records)), repeats)
    timed("finished ones looked up", lambda: [store.reusable(runs_dir, f, "0") for f in fingerprints], repeats)
    timed(
        "locks taken, released", lambda: [locks.take_lock(runs_dir / f).release() for f in fingerprints[:1000]], repeats
    )
    print("    (of 1000 of the runs)")


def timed(name: str, does: Callable[[], Any], repeats: int) -> None:
    """Print the median of the wall time and of this process's CPU time."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        does()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"  {name:22}{statistics.median(walls):8.2f} s   {statistics.median(cpus):.2f} s CPU")


def write_records(runs_dir: Path, runs: int) -> list[str]:
    """Finished records as a sweep over methods, ranks and seeds leaves them."""
    random.seed(0)
    template = store.start_record(runs_dir, "template", "lora", {}, {"seed": 0})
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
            "times_s": {"load": 1.0, "tokenise": 0.5, "score_before": 2.0, "train": 60.0, "score_after": 2.0},
            "training": {"optimizer_steps": 300, "tokens": 10**5, "tokens_per_s": 5e3, "best_step": 300},
            "scores": {"before": scores(), "after": scores(), "signatures": {}},
        }
        kept["training"] |= {"curve": curve, "validation": [{"step": 300, "loss": losses[-1]}]}
        store.write_record(runs_dir, store.mark_finished(kept))
    return fingerprints


def scores() -> dict[str, float]:
    """Figures in the range of real ones."""
    return {"loss": random.random(), "rouge_l": 100 * random.random(), "bleu": 100 * random.random()}


# --- simulated --------------------------------------------------------------------------------------------

# Operations on names of the run's folder (open, stat, rename, mkdir, unlink, utime), counted with strace over runs of
# the embedded model: what each run causes (lock, record, adapter, predictions, last checkpoint), and what a second of
# it does: 3 every 15 s for the heartbeat, 2 every 1.5 s for its progress, 25 every 5 minutes for a checkpoint.
PER_RUN = 150
PER_SECOND = 3 / 15 + 2 / 1.5 + 25 / 300
LOOKUP = 2  # operations to see that another has taken or finished a plan


def simulate(runs: int, nodes: int, run_s: float, rate: float) -> str:
    """One line: ``nodes`` processes, each started on the whole list of plans at the same moment.

    Every process goes through the list in the same order, and takes the first plan that nobody holds. The file
    server answers ``rate`` operations a second, first come, first served (fluid: what is asked beyond waits).
    """
    free_at = [0.0] * nodes  # seconds
    looked = [0] * nodes  # plans that the process has already passed
    taken, asked, waited = 0, 0.0, 0.0
    server = 0.0  # when the server has answered all so far
    spread = random.Random(0)
    while taken < runs:
        node = min(range(nodes), key=free_at.__getitem__)
        passed = taken - looked[node]  # by others since: each costs a look
        operations = LOOKUP * passed + PER_RUN
        begins = max(free_at[node], server)
        server = begins + operations / rate
        waited += server - free_at[node] - operations / rate
        looked[node], taken, asked = taken + 1, taken + 1, asked + operations
        free_at[node] = server + run_s * spread.uniform(0.8, 1.2)
    total_s = max(free_at)
    steady = nodes * PER_SECOND
    ideal_s = math.ceil(runs / nodes) * run_s
    return (
        f"  {runs:>7} runs of {run_s / 60:g} min, {rate:g} op/s: {total_s / 3600:6.1f} h, {total_s / ideal_s - 1:+.1%} "
        f"on ideal; {asked / 1e6:.1f} M operations of starts and ends, {waited / runs:.2f} s waited a run; "
        f"{steady:.0f} op/s while training"
    )


if __name__ == "__main__":
    main()
