#!/usr/bin/env python
"""Measure the passes that trainer.kernels=auto writes out against those that PEFT and transformers compose.

    python scripts/bench/passes.py model=smollm2_135m data=gsm8k data.path=<folder> peft=lora
    python scripts/bench/passes.py model=smollm2_135m model.dtype=bfloat16 --rounds 9

Takes overrides of the command. Forward and backward passes over the same batches alternate: plain, LoRA's layers
fused, the loss fused, both, both without padding (on a CPU), and that for rows that were passed before, whose layers
below the lowest trained weight are known (where there are any). Prints milliseconds a pass (CPU time on a CPU, which
a busy neighbor changes less than the clock; time to the end of the work on a GPU), how many times as fast as plain with
the lowest and highest round, peak memory of a pass on a GPU, and the relative difference of loss and gradients.
"""

import argparse
import statistics
import time
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from plans import read_plan

from harness.data.collate import collate, with_needed_logits
from harness.models.base import load_base
from harness.pipeline import steps, tune
from harness.pipeline.cache import ProcessCache
from harness.training.fused.frozen import FrozenLayers, frozen_below
from harness.training.fused.head import fused_head
from harness.training.fused.low_rank import fused_lora
from harness.training.fused.rows import joined_rows, why_padded

WAYS: dict[str, tuple[Any, ...]] = {
    "plain": (),
    "LoRA": (fused_lora,),
    "loss": (fused_head,),
    "both": (fused_lora, fused_head),
    "rows": (fused_lora, fused_head),
    "again": (fused_lora, fused_head),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    torch.set_num_threads(given.threads)
    plan, _ = read_plan(given.overrides)
    base = load_base(plan.model)
    rows = steps.tokenize(plan, ProcessCache(), base)
    model: Any = tune.attach(plan, base, rows).model.train()
    training, size = rows.splits["train"], plan.trainer.batch_size
    pad = int(base.tokenizer.pad_token_id)
    batches = [
        with_needed_logits(collate(training[start : start + size], pad, "right"))
        for start in range(0, given.rounds * size, size)
    ]
    ways = [way for way in WAYS if way != "again" or (why_padded(model) is None and frozen_below(model))]
    for way in ways:
        one_pass(model, base, batches[0], way)  # warm
    found: dict[str, list[tuple[float, int, float, torch.Tensor]]] = {way: [] for way in ways}
    for number, batch in enumerate(batches):
        order = ways if number % 2 == 0 else ways[::-1]
        for way in order:
            found[way].append(one_pass(model, base, batch, way))
    tokens = statistics.mean(int(batch["attention_mask"].sum()) for batch in batches)
    print(f"{plan.model.name}, {base.dtype}, {base.device}, {plan.method}: {tokens:.0f} tokens a pass")
    print("way     ms a pass  times as fast  (low, high)   peak MiB  difference of loss, of gradients")
    plain = found["plain"]
    for way, passes in found.items():
        ratios = [before[0] / now[0] for before, now in zip(plain, passes, strict=True)]
        loss = max(abs(now[2] - before[2]) / abs(before[2]) for before, now in zip(plain, passes, strict=True))
        gradient = max(
            float((now[3] - before[3]).norm() / before[3].norm()) for before, now in zip(plain, passes, strict=True)
        )
        print(
            f"{way:6}  {1000 * statistics.median(each[0] for each in passes):9.1f}  {statistics.median(ratios):13.2f}  "
            f"({min(ratios):.2f}, {max(ratios):.2f})  {max(each[1] for each in passes) / 2**20:8.0f}  "
            f"{loss:.1e}, {gradient:.1e}"
        )


def one_pass(model: Any, base: Any, batch: dict[str, Any], way: str) -> tuple[float, int, float, torch.Tensor]:
    """Seconds, peak bytes, loss and all gradients of one forward and backward pass."""
    device = base.device
    inputs = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in batch.items()}
    items = (inputs["labels"][:, 1:] != -100).sum()
    model.zero_grad()
    half = base.dtype is not torch.float32
    with ExitStack() as stack:
        for each in WAYS[way]:
            stack.enter_context(each(model))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        frozen = FrozenLayers(model, frozen_below(model)) if way == "again" else None
        if frozen is not None:
            with joined_rows(model, inputs) as [seen], torch.autocast(device.type, base.dtype, enabled=half):
                frozen.learn(seen)
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        started = clock()
        if way in ("rows", "again") and why_padded(model) is None:
            [inputs] = stack.enter_context(joined_rows(model, inputs))
        known = nullcontext() if frozen is None else frozen.given(inputs)
        with torch.autocast(device.type, base.dtype, enabled=half), known:
            loss = model(**inputs, num_items_in_batch=items).loss
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = clock() - started
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    gradients = [weight.grad.flatten().float().cpu() for weight in model.parameters() if weight.grad is not None]
    return seconds, peak, float(loss.detach()), torch.cat(gradients)


if __name__ == "__main__":
    main()
