"""What leaving out unneeded logits saves in a step: ``python scripts/bench_logits.py model=smollm2_135m data=...``.

Takes overrides as the command does. The same batches are trained on with all logits and with those that a label needs,
in turn, and the median times are compared; on a GPU the peak of memory as well.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from harness.data.collate import collate, with_needed_logits
from harness.data.tokenize import TokenizedRow
from harness.pipeline import cache, steps
from harness.plan.read import read_config
from harness.shipped import shipped_folder

STEPS = 6  # of each, the first left out


def main() -> None:
    """Measure and print."""
    compose.register_schema()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3"):
        made, options = read_config(compose("config", overrides=sys.argv[1:]))
    torch.set_num_threads(options.threads or 1)
    this = steps.Experiment(made, options, "", {"inferred": {}, "notes": [], "fingerprint": made.fingerprint})
    base, _ = cache.load_shared_base(made)
    examples = cache.prepared_rows(made, base)
    model = this.attach(base, examples).train()
    device = next(model.parameters()).device
    seconds: dict[str, list[float]] = {"all": [], "needed": []}
    peaks, kept = {"all": 0, "needed": 0}, []
    for batch in batches(examples.splits["train"], made.trainer.batch_size, int(base.tokenizer.pad_token_id)):
        spared = with_needed_logits(batch)
        kept.append(spared["logits_to_keep"] / batch["labels"].shape[1])
        for name, given in (("all", batch), ("needed", spared)):
            seconds[name].append(step(model, given, device))
            peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)
    medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    print(f"{made.method} on {made.model.name}, batches of {made.trainer.batch_size}, {device}, {base.dtype}")
    print(f"  logits needed: {statistics.mean(kept):.0%}")
    print(f"  a step: {medians['all']:.3f} s with all, {medians['needed']:.3f} s with the needed ones alone;", end=" ")
    print(f"ratio {medians['all'] / medians['needed']:.2f}")
    if device.type == "cuda":
        print(f"  peak: {peaks['all'] / 2**30:.2f} GiB with all, {peaks['needed'] / 2**30:.2f} GiB")


def batches(rows: list[TokenizedRow], size: int, pad_id: int) -> Iterator[dict[str, Any]]:
    """Batches of like length, as training has them."""
    order = sorted(rows, key=lambda example: len(example.input_ids))
    apart = max(size, len(order) // STEPS)
    for start in range(0, len(order) - size + 1, apart):
        yield collate(order[start : start + size], pad_id, "right")


def step(model: Any, given: dict[str, Any], device: torch.device) -> float:
    """CPU seconds of a forward and a backward pass; on a GPU seconds."""
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = clock()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=model.dtype is torch.bfloat16):
        model(**inputs).loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    spent = clock() - began
    model.zero_grad()
    return spent


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
