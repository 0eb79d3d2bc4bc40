"""A bare PyTorch loop over the harness's own model and batches, the bound of what its training can reach.

Called by ``scripts/bench/peers.py`` with the overrides of the command. No trainer, no record, no scoring.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from common import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()

    import torch

    from harness.data.collate import collate, with_needed_logits
    from harness.data.sampler import LengthSampler
    from harness.data.tokenize import IGNORED
    from harness.pipeline.tune import attach

    plan, base, audited = load(given.overrides)
    model = attach(plan, base, audited).model.train()
    rows, size = audited.splits["train"], plan.trainer.batch_size
    order = list(LengthSampler([len(row.input_ids) for row in rows], size, plan.seed))
    steps = math.ceil(len(order) / size)
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=plan.learning_rate, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, steps))
    for start in range(0, len(order), size):
        batch = collate(
            [rows[number] for number in order[start : start + size]], int(base.tokenizer.pad_token_id), "right"
        )
        items = (batch["labels"][:, 1:] != IGNORED).sum()
        inputs: dict[str, Any] = with_needed_logits(batch)
        loss = model(**inputs, num_items_in_batch=items).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.trainer.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(given.adapter)


def share(step: int, steps: int) -> float:
    """Of the learning rate: cosine after one step of warm-up, as for every contestant."""
    return 0.0 if step == 0 else 0.5 * (1 + math.cos(math.pi * (step - 1) / max(1, steps - 1)))


if __name__ == "__main__":
    main()
