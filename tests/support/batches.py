"""What a model sees while it trains."""

from typing import Any

import torch


class Spy:
    """Keeps the batches that the model saw."""

    def __init__(self, model: Any) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []
        inner = model.get_base_model()
        inner.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training:
            kept = ("input_ids", "attention_mask", "labels")
            self.batches.append({name: kwargs[name].clone() for name in kept if kwargs.get(name) is not None})


def example_batch(made: Any) -> dict[str, Any]:
    """The first four training rows of a ``Prepared`` run, as its Trainer has them."""
    from harness.data.collate import collate, with_needed_logits

    return with_needed_logits(collate(made.rows.splits["train"][:4], int(made.base.tokenizer.pad_token_id), "right"))
