"""Measure how much time and memory a training step saves by computing only the logits that a label needs.

    python scripts/bench/logits.py model=smollm2_135m data=medicine

Takes the same overrides as the command. Trains on the same batches alternately with all logits and with the needed
ones, and prints the median step times, and on a GPU the peak memory.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from plans import read_plan

from harness.data.collate import collate, with_needed_logits
from harness.data.tokenize import TokenizedRow
from harness.pipeline import steps
from harness.pipeline.cache import ProcessCache
from harness.pipeline.tune import attach

STEPS = 6  # of each kind; the first warms up and is not counted


def main() -> None:
    """Measure and print."""
    plan, options = read_plan(sys.argv[1:])
    cache = ProcessCache()
    base = steps.load(plan, cache, options.threads or 1).base
    rows = steps.tokenize(plan, cache, base)
    model = attach(plan, base, rows).model.train()
    device = next(model.parameters()).device
    seconds: dict[str, list[float]] = {"all": [], "needed": []}
    peaks, needed_fractions = {"all": 0, "needed": 0}, []
    for batch in batches(rows.splits["train"], plan.trainer.batch_size, int(base.tokenizer.pad_token_id)):
        reduced = with_needed_logits(batch)
        needed_fractions.append(reduced["logits_to_keep"] / batch["labels"].shape[1])
        for name, inputs in (("all", batch), ("needed", reduced)):
            seconds[name].append(step(model, inputs, device))
            peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    print(f"{plan.method} on {plan.model.name}, batch size {plan.trainer.batch_size}, {device}, {base.dtype}")
    print(f"  logits needed: {statistics.mean(needed_fractions):.0%}")
    print(
        f"  one step: {medians['all']:.3f} s with all logits, {medians['needed']:.3f} s with the needed ones", end=" "
    )
    print(f"({medians['all'] / medians['needed']:.2f} times as fast)")
    if device.type == "cuda":
        print(f"  peak memory: {peaks['all'] / 2**30:.2f} GiB with all, {peaks['needed'] / 2**30:.2f} GiB with needed")


def batches(rows: list[TokenizedRow], size: int, pad_id: int) -> Iterator[dict[str, Any]]:
    """Batches of rows of similar length, as in training."""
    by_length = sorted(rows, key=lambda row: len(row.input_ids))
    stride = max(size, len(by_length) // STEPS)
    for start in range(0, len(by_length) - size + 1, stride):
        yield collate(by_length[start : start + size], pad_id, "right")


def step(model: Any, batch: dict[str, Any], device: torch.device) -> float:
    """Seconds that one forward and backward pass takes: process time on a CPU, wall time on a GPU."""
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = clock()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=model.dtype is torch.bfloat16):
        model(**inputs).loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    spent = clock() - start
    model.zero_grad()
    return spent


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
