"""How long answers to the scored prompts take with a LoRA adapter: against one by one, or against the base alone.

Called by ``scripts/bench/peers.py`` with the overrides of the command. Prints one JSON object. Every answer has
``scoring.generation.max_new_tokens`` tokens: no end stops it, so that speeds can be compared.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from common import load

PIECES = 8  # of the prompts; small ones, so that a slow moment of the machine meets both alike


class Answers:
    """Time that scoring spends on answers, between the last loss and the last answer."""

    def __init__(self, overrides: Sequence[str]) -> None:
        import torch

        from harness.pipeline.tune import attach
        from harness.scoring.batching import needs_equal_lengths

        self.plan, self.base, audited = load(overrides)
        self.model = attach(self.plan, self.base, audited).model
        torch.manual_seed(0)
        with torch.no_grad():  # as after a training: B is no longer zero
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=1e-3)
        self.model.requires_grad_(False)
        self.equal_lengths = needs_equal_lengths(self.base.model, self.plan.method, self.plan.settings)
        self.rows = audited.splits[self.plan.scoring.split]

    def measure(self, model: Any, rows: Sequence[Any], batch_size: int | None = None) -> tuple[float, float]:
        """Seconds and CPU seconds."""
        from harness.scoring.score import score

        generation = self.plan.scoring.generation
        if batch_size is not None:
            generation = replace(generation, batch_size=batch_size)
        times: dict[str, tuple[float, float]] = {}

        def told(unit: str, done: int, of: int) -> None:
            times[unit] = time.perf_counter(), time.process_time()

        never = (int(self.base.tokenizer.pad_token_id),)
        score(
            model, self.base.tokenizer, rows, (), replace(self.plan.scoring, generation=generation),
            stops=never, equal_lengths=self.equal_lengths, seed=self.plan.seed, told=told,
        )  # fmt: skip
        begun, ended = times["loss"], times["answer"]
        return ended[0] - begun[0], ended[1] - begun[1]


def against_single(answers: Answers) -> dict[str, float]:
    """All prompts with the adapter, in batches and one by one."""
    found: dict[str, float] = {}
    for name, batch_size in (("batched", None), ("single", 1)):
        found[f"{name}_s"], found[f"{name}_cpu_s"] = answers.measure(answers.model, answers.rows, batch_size)
    return found


def against_base(answers: Answers) -> dict[str, float]:
    """All prompts in batches, with the adapter and without: in pieces, each by both, which take turns to be first."""
    found: Counter[str] = Counter()
    for number in range(PIECES):
        rows = answers.rows[number::PIECES]
        pair = [("lora", answers.model), ("base", answers.base.model)]
        for name, model in pair if number % 2 else reversed(pair):
            seconds, cpu_s = answers.measure(model, rows)
            found[f"{name}_s"] += seconds
            found[f"{name}_cpu_s"] += cpu_s
    return dict(found)


AGAINST = {"single": against_single, "base": against_base}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=AGAINST, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    answers = Answers(given.overrides)
    answers.measure(answers.base.model, answers.rows[::PIECES])  # warm up
    work = {"prompts": len(answers.rows), "new_tokens": answers.plan.scoring.generation.max_new_tokens}
    print(json.dumps(AGAINST[given.against](answers) | work))


if __name__ == "__main__":
    main()
