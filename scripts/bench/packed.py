"""Measure runs that train in one pass (hydra/launcher=packed) against the same runs one after another.

    python scripts/bench/packed.py model=tiny                    # six cells, whole commands, both ways in turn
    python scripts/bench/packed.py --gate model=smollm2_135m     # passes of 2 to 8 runs by the tokens of a batch

Takes overrides of the command. The first form prints the medians of whole commands and of their training, the lowest
and the highest ratio of a round, and the largest difference of a validation loss. ``--gate`` prints how many times as
fast one pass for all runs is as one for each; ``TOKENS_THAT_PAY`` in harness/estimate/packing.py is read off it.
``--rounds 5`` sets how often each is measured, ``--tokens 64 256`` the tokens of a batch.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIX = ("lora.r=4,8,16", "lora.lora_alpha=16,32")
SMALL = (
    *("trainer.max_steps=20", "trainer.batch_size=8", "trainer.evaluations=1", "data.limits.train=160"),
    *("data.limits.validation=8", "data.limits.test=8", "scoring.metrics=[]", "scoring.forgetting=null"),
)
RANKS = (4, 8, 16, 4, 8, 16, 4, 8)
COUNTS = (2, 4, 6, 8)
LENGTH = 32
TOKENS = (32, 64, 128, 256, 512, 896)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", action="store_true", help="single passes by number of runs and tokens of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="*", default=TOKENS, help="of a batch, for --gate")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    if given.gate:
        measure_gate(given.overrides, given.rounds, given.tokens)
    else:
        measure_commands(given.overrides, given.rounds)


def measure_commands(overrides: Sequence[str], rounds: int) -> None:
    """Six cells as whole commands, packed and one after another in turn."""
    walls: dict[str, list[float]] = {"basic": [], "packed": []}
    trains: dict[str, list[float]] = {"basic": [], "packed": []}
    losses: dict[str, dict[str, float]] = {}
    packed_runs = 1
    for number in range(rounds):
        for launcher in ("basic", "packed") if number % 2 == 0 else ("packed", "basic"):
            with tempfile.TemporaryDirectory() as folder:
                seconds, records = command(launcher, Path(folder) / "runs", overrides)
            walls[launcher].append(seconds)
            trains[launcher].append(sum(record["times_s"]["train"] for record in records.values()))
            losses[launcher] = {name: record["training"]["validation"][-1]["loss"] for name, record in records.items()}
            packed_runs = max(packed_runs, *(record.get("packed", {}).get("runs", 1) for record in records.values()))
        print(f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.1f} s" for name, times in walls.items()))
    print(f"six cells, up to {packed_runs} runs in one pass; medians of {rounds} rounds")
    for what, times in (("whole command", walls), ("training", trains)):
        ratios = [packed / basic for packed, basic in zip(times["packed"], times["basic"], strict=True)]
        basic, packed = (statistics.median(times[name]) for name in ("basic", "packed"))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {what}: {basic:.2f} s one after another, {packed:.2f} s packed; {packed / basic:.2f} ({spread})")
    apart = max(abs(loss - losses["basic"][name]) for name, loss in losses["packed"].items())
    print(f"  largest difference of a validation loss: {apart:.1e}")


def command(launcher: str, runs_dir: Path, overrides: Sequence[str]) -> tuple[float, dict[str, dict[str, Any]]]:
    """Seconds of the command, and its records by fingerprint."""
    from harness.record import store

    words = [f"hydra/launcher={launcher}", *SMALL, *SIX, f"runs_dir={runs_dir}", *overrides]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "harness", "-m", *words], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"hydra/launcher={launcher} ended with {done.returncode}:\n{done.stderr}")
    return seconds, {record["fingerprint"]: record for record in store.all_records(runs_dir)}


def measure_gate(overrides: Sequence[str], rounds: int, sizes: Sequence[int]) -> None:
    """Passes of several runs together and one after another, in turn, by the tokens of a batch."""
    import torch
    from plans import read_plan

    from harness.pipeline import steps
    from harness.pipeline.cache import ProcessCache
    from harness.pipeline.tune import attach
    from harness.runtime import memory
    from harness.training.packed.ambient import Ambient
    from harness.training.packed.host import Host

    memory.keep_freed_memory()  # as the launcher does
    cache, models = ProcessCache(), []
    for rank in RANKS:
        plan, options = read_plan([f"lora.r={rank}", *overrides])
        base = steps.load(plan, cache, options.threads or torch.get_num_threads()).base
        models.append(attach(plan, base, steps.tokenize(plan, cache, base)).model.train())
    host, states = Host(base), {str(number): Ambient() for number in range(len(models))}
    for number, model in enumerate(models):
        host.admit(str(number), model)
    print(
        f"{plan.model.name}, {base.device}, {base.dtype}, {torch.get_num_threads()} threads: times as fast in one pass"
    )
    print("tokens of a batch  " + "".join(f"{count:>8} runs" for count in COUNTS))
    for tokens in sizes:
        batches = {str(number): batch_of(model, base, tokens) for number, model in enumerate(models)}
        shown = []
        for count in COUNTS:
            chosen = {name: batches[name] for name in list(batches)[:count]}
            ratios = [ratio(host, chosen, states) for _ in range(rounds + 1)][1:]  # the first one warms up
            shown.append(f"{statistics.median(ratios):>13.2f}")
        print(f"{tokens:>17}  " + "".join(shown), flush=True)


def batch_of(model: Any, base: Any, tokens: int) -> Any:
    """Rows of made-up tokens, the second half of each trained."""
    import torch

    from harness.data.collate import with_needed_logits
    from harness.training.packed.member import Batch

    shape = (max(1, tokens // LENGTH), min(tokens, LENGTH))
    ids = torch.randint(0, int(base.model.config.get_text_config().vocab_size), shape)
    labels = ids.clone()
    labels[:, : shape[1] // 2] = -100
    inputs = with_needed_logits({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    placed = {name: each.to(base.device) if isinstance(each, torch.Tensor) else each for name, each in inputs.items()}
    items = (placed["labels"][:, 1:] != -100).sum()
    return Batch(model, base, placed, items, nullcontext, float(tokens), tokens, fused=True)


def ratio(host: Any, batches: dict[str, Any], states: dict[str, Any]) -> float:
    """Seconds of the passes one after another, divided by those of one pass for all."""
    import torch

    from harness.training.fused.head import fused_head
    from harness.training.fused.low_rank import fused_lora
    from harness.training.fused.rows import joined_rows, why_padded

    def written_out(batch: Any) -> Any:
        return nullcontext([batch.inputs]) if why_padded(batch.model) else joined_rows(batch.model, batch.inputs)

    def seconds(work: Any) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        for batch in batches.values():
            batch.model.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    def alone() -> None:
        for batch in batches.values():
            with fused_lora(batch.model), fused_head(batch.model), written_out(batch) as [inputs]:
                batch.model(**inputs, num_items_in_batch=batch.items).loss.backward()

    return seconds(alone) / seconds(lambda: host.run(batches, {name: states[name] for name in batches}))


if __name__ == "__main__":
    main()
