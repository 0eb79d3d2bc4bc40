#!/usr/bin/env python
"""Forecasts of stage=plan for runs whose peak others have published, without their weights.

    python scripts/bench/published_peaks.py

The runs are those of PEFT's method_comparison (MetaMathQA, one L40S): Llama 3.2 3B in bfloat16, 4 rows of at most 768
tokens in a pass, loss on every token. Their peak is what PyTorch's allocator has reserved at the end of a step, at
most, over 5,000 steps. Forecasts go to docs/results/planning-published.jsonl, and python scripts/docs/planning_table.py
writes the table of docs/planning.md. Takes two minutes on one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from plans import read_plan

from harness.estimate.footprint import Batch, footprint

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "planning-published.jsonl"
ROWS, TOKENS = 4, 768
COMMON = (
    *("model=llama3_2_3b", "model.dtype=bfloat16", "trainer.objective=full_sequence", "trainer.kernels=plain"),
    *(f"trainer.batch_size={ROWS}", f"data.max_tokens={TOKENS}"),
)

# By experiment of method_comparison: our overrides, trained numbers and peak in bytes of its result file of July 2026.
PUBLISHED: dict[str, tuple[list[str], int, int]] = {
    "lora rank32": (["peft=lora", "lora.r=32", "lora.target_modules=null"], 9_175_040, 22_292_725_760),
    "lora rank32-dora": (
        ["peft=lora", "lora.r=32", "lora.target_modules=null", "lora.use_dora=true"],
        9_289_728,
        24_532_484_096,
    ),
    "lora rank64-rslora": (
        ["peft=lora", "lora.r=64", "lora.target_modules=null", "lora.use_rslora=true"],
        18_350_080,
        22_561_161_216,
    ),
    "lora rank10-target-mlp": (
        ["peft=lora", "lora.r=10", "lora.target_modules=[up_proj,gate_proj,down_proj]"],
        9_461_760,
        24_698_159_104,
    ),
    "adalora rank32": (
        ["peft=adalora", "adalora.init_r=64", "adalora.target_r=32", "adalora.target_modules=null"],
        18_353_664,
        22_781_362_176,
    ),
    "vera default": (["peft=vera", "vera.r=256", "vera.target_modules=null"], 129_024, 21_621_637_120),
    "ia3 default": (["peft=ia3"], 286_720, 23_234_347_008),
    "ln_tuning default": (["peft=ln_tuning", "ln_tuning.target_modules=null"], 175_104, 21_181_235_200),
    "prompt_tuning lr_0.001": (
        ["peft=prompt_tuning", "prompt_tuning.num_virtual_tokens=200"],
        614_400,
        24_394_072_064,
    ),
}


def main() -> None:
    """Forecast all of them."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    lines = [forecast(name) for name in PUBLISHED]
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def forecast(name: str) -> dict[str, Any]:
    """One line of the results: what was published, and what ``stage=plan`` says of the same run."""
    overrides, trained, peak = PUBLISHED[name]
    plan, _ = read_plan([*COMMON, *overrides])
    found = footprint(plan, "bfloat16", Batch(ROWS, TOKENS, TOKENS - 1))
    line = {
        **{"experiment": name, "overrides": overrides, "trained": trained, "peak": peak},
        **{"forecast_trained": found.gradients // 4, "forecast_peak": found.weights + found.above_weights_in_training},
    }
    print(f"{name}: {peak:,} published, {line['forecast_peak']:,} forecast", flush=True)
    return line


if __name__ == "__main__":
    main()
