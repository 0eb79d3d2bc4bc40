"""How long answers to the scored prompts take: batched and one by one, with a LoRA adapter and with the base alone.

Called by ``scripts/bench/peers.py`` with the overrides of the command. Prints one JSON object. Every answer has
``scoring.generation.max_new_tokens`` tokens: no end stops it, so that speeds can be compared.
"""

import argparse
import json
import time
from dataclasses import replace
from typing import Any

from common import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()

    import torch

    from harness.pipeline.tune import attach
    from harness.scoring.batching import needs_equal_lengths

    plan, base, audited = load(given.overrides)
    model = attach(plan, base, audited).model
    torch.manual_seed(0)
    with torch.no_grad():  # as after a training: B is no longer zero
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3)
    model.requires_grad_(False)
    equal = needs_equal_lengths(base.model, plan.method, plan.settings)
    rows = audited.splits[plan.scoring.split]

    found: dict[str, float] = {}
    for name, scored, batch_size in (
        ("warmup", base.model, None), ("base", base.model, None), ("batched", model, None), ("single", model, 1),
    ):  # fmt: skip
        found[f"{name}_s"], found[f"{name}_cpu_s"] = generation_s(scored, base, plan, rows, equal, batch_size)
    print(json.dumps({**found, "prompts": len(rows), "new_tokens": plan.scoring.generation.max_new_tokens}))


def generation_s(
    model: Any, base: Any, plan: Any, rows: Any, equal: bool, batch_size: int | None
) -> tuple[float, float]:
    """Seconds and CPU seconds that scoring spends on answers, between the last loss and the last answer."""
    from harness.scoring.score import score

    generation = plan.scoring.generation
    if batch_size is not None:
        generation = replace(generation, batch_size=batch_size)
    times: dict[str, tuple[float, float]] = {}

    def told(unit: str, done: int, of: int) -> None:
        times[unit] = time.perf_counter(), time.process_time()

    never = (int(base.tokenizer.pad_token_id),)
    score(
        model, base.tokenizer, rows, (), replace(plan.scoring, generation=generation),
        stops=never, equal_lengths=equal, seed=plan.seed, told=told,
    )  # fmt: skip
    begun, ended = times["loss"], times["answer"]
    return ended[0] - begun[0], ended[1] - begun[1]


if __name__ == "__main__":
    main()
