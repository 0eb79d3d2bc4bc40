#!/usr/bin/env python
"""Measure what stage=plan forecasts: peak memory above the loaded process, operations and time of training passes.

    python scripts/bench/planning.py [--only tiny-lora ...]

Each setting is measured in a process of its own, which loads the base, trains once on a few tokens so that libraries
have what they keep, and then trains two steps on made rows while the system notes the peak of its resident memory. A
third step is counted by torch's counter, and torch's profiler notes what two more steps allocate. Figures go to
docs/results/planning.jsonl, one line a setting; a setting that is there already is skipped. Then python
scripts/docs/planning_table.py writes the table of docs/planning.md. Memory and operations do not depend on how busy
the machine is. Seconds are those of the processor, and noisy.
"""

import argparse
import gc
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lines
import psutil
import torch
from plans import read_plan
from torch.profiler import ProfilerActivity, profile

from harness.data.rows import Row
from harness.data.tokenize import TokenizedRow
from harness.estimate.allocation import most_allocated
from harness.estimate.footprint import Batch, counting, footprint
from harness.estimate.planning import measured_here
from harness.frozen import freeze
from harness.models.base import load_base
from harness.pipeline import tune
from harness.plan.spec import Plan
from harness.runtime import memory
from harness.training.train import TrainingInputs, train

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "planning.jsonl"
STEPS = 2  # whose peak is measured: from the second on, the optimizer's states are there from the start

PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "during")

# By name: model, overrides, rows, tokens of each, labels of each.
SETTINGS: dict[str, tuple[str, list[str], int, int, int]] = {
    "tiny-lora": ("tiny", ["peft=lora"], 32, 128, 48),
    "tiny-lora-checkpointing": ("tiny", ["peft=lora", "trainer.gradient_checkpointing=true"], 64, 128, 48),
    "tiny-lora-plain": ("tiny", ["peft=lora", "trainer.kernels=plain"], 32, 128, 48),
    "tiny-full": ("tiny", ["peft=full"], 32, 128, 48),
    "tiny-ia3": ("tiny", ["peft=ia3"], 32, 128, 48),
    "smollm-lora": ("smollm2_135m", ["peft=lora"], 2, 64, 24),
    "smollm-lora-checkpointing": ("smollm2_135m", ["peft=lora", "trainer.gradient_checkpointing=true"], 2, 96, 24),
    "smollm-lora-plain": ("smollm2_135m", ["peft=lora", "trainer.kernels=plain"], 2, 64, 24),
    "smollm-ia3": ("smollm2_135m", ["peft=ia3"], 2, 64, 24),
    "smollm-full": ("smollm2_135m", ["peft=full"], 1, 64, 24),
    "smollm-bf16": ("smollm2_135m", ["peft=lora", "model.dtype=bfloat16"], 2, 64, 24),
    "gemma-lora": ("gemma3_270m", ["peft=lora"], 2, 64, 24),
    "gemma-lora-long": ("gemma3_270m", ["peft=lora"], 1, 160, 48),
    "gemma-ia3": ("gemma3_270m", ["peft=ia3"], 2, 64, 24),
    "gemma-prompt": ("gemma3_270m", ["peft=prompt_tuning"], 2, 64, 24),
}


def main() -> None:
    """Measure the settings that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = {line["setting"] for line in lines.read(given.results)}
    for name in given.only:
        if name not in known:
            line = compared(name)
            lines.append(given.results, line)
            print(
                f"{name}: {line['peak'] / 2**20:,.0f} MiB, forecast {line['forecast_peak'] / 2**20:,.0f}; "
                f"{line['flops']:.3e} operations, forecast {line['forecast_flops']:.3e}",
                flush=True,
            )


def compared(name: str) -> dict[str, Any]:
    """One line of the results: the forecast, and what a process of its own measures."""
    model, overrides, rows, tokens, labels = SETTINGS[name]
    plan, _ = read_plan([f"model={model}", *overrides, "trainer.threads=1"])
    plan = of_steps(plan, rows, STEPS)
    dtype = plan.model.dtype.value
    seen = in_process_of_its_own(plan, tokens, labels)
    forecast = footprint(plan, dtype, Batch(rows, tokens, labels))
    speed = measured_here(dtype, time.process_time).flops_per_s(dtype)
    return {
        **{"setting": name, "model": model, "overrides": overrides, "dtype": dtype},
        **{"rows": rows, "tokens": tokens, "labels": labels},
        **seen,
        **{"forecast_parts": {part: getattr(forecast, part) for part in PARTS}},
        **{"forecast_peak": forecast.above_weights_in_training, "forecast_flops": forecast.flops},
        **{"forecast_seconds": forecast.flops / speed, "torch": torch.__version__},
    }


def of_steps(plan: Plan, rows: int, steps: int) -> Plan:
    """The plan for so many optimizer steps and nothing between them."""
    trainer = replace(plan.trainer, max_steps=steps, batch_size=rows, evaluations=0, keep_best=False)
    return replace(plan, trainer=freeze(trainer))


def in_process_of_its_own(plan: Plan, tokens: int, labels: int) -> dict[str, float]:
    """What ``measured`` gives, from a process that has imported all and loaded nothing."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(there, plan, tokens, labels))
    child.start()
    there.close()
    try:
        found: dict[str, float] = here.recv()
    finally:
        child.join()
    return found


def _send(pipe: Any, plan: Plan, tokens: int, labels: int) -> None:
    pipe.send(measured(plan, tokens, labels))


def measured(plan: Plan, tokens: int, labels: int) -> dict[str, float]:
    """Peaks of tensors and of resident memory above the process with the base, operations, and seconds of a pass."""
    base = load_base(plan.model)
    rows = plan.trainer.batch_size
    trained(of_steps(plan, 1, 1), base, made_rows(1, 8, 4))
    large = torch.ones((1024, 1024), dtype=base.dtype)
    torch.mm(large, large)  # libraries keep what they pack large matrices into
    del large
    _settle()
    loaded = psutil.Process().memory_info().rss
    memory.reset_high_water_mark()
    started = time.process_time()
    trained(plan, base, made_rows(rows, tokens, labels))
    seconds = (time.process_time() - started) / STEPS
    peak = memory.highest_since_reset("cpu") or 0
    _settle()
    with counting() as counter:
        trained(of_steps(plan, rows, 1), base, made_rows(rows, tokens, labels))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        trained(plan, base, made_rows(rows, tokens, labels))  # from the second step on there are optimizer states
    flops = float(counter.get_total_flops())
    return {"allocated": most_allocated(seen), "peak": peak - loaded, "flops": flops, "seconds": seconds}


def trained(plan: Plan, base: Any, rows: list[TokenizedRow]) -> Any:
    """The plan's model, trained on these rows; nothing is kept of its checkpoints."""
    attached: Any = tune.attach(plan, base, SimpleNamespace(splits={"train": rows}))  # type: ignore[arg-type]
    inputs = TrainingInputs(rows, rows[:1], int(base.tokenizer.pad_token_id), base.dtype, idle=(base.model,))
    with scratch() as folder:
        train(attached.model, plan, inputs, folder)
    return attached.model


def _settle() -> None:
    """Give back what nothing holds any more."""
    import ctypes

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def made_rows(rows: int, tokens: int, labels: int) -> list[TokenizedRow]:
    """Rows of made ids, all but the first one token shorter: batches have padding."""
    row = Row(1, "made", "", "", "", (), None)
    sizes = [tokens - (number > 0) for number in range(rows)]
    return [TokenizedRow(tuple(5 + number % 200 for number in range(n)), n - labels, row, "") for n in sizes]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
