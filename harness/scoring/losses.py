"""Completion losses, the same for validation during training and for scoring."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.data.collate import by_length, collate, positions_needed
from harness.data.tokenize import TokenizedRow
from harness.methods.registry import hooks_of_type
from harness.models.device import base_precision
from harness.models.network import base_network, is_sharded

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

CHUNK_BYTES = 64 << 20  # of the logits that are there at a time, float32
FEWEST = 64  # positions at a time, however wide the vocabulary: fewer waste the processor

Told = Callable[[str, int, int], None]  # what is counted (loss, answer), rows that are done, and all of them


def untold(unit: str, rows: int, of: int) -> None:
    """Nobody watches."""


def mean_completion_loss(
    model: "PreTrainedModel | PeftModel",
    examples: Sequence[TokenizedRow],
    *,
    pad_id: int,
    batch_size: int,
    plain: bool = False,
    told: Told = untold,
) -> float:
    """Mean loss per completion token over all examples (nats); padding and prompt never count.

    Computed from the logits, not taken from the model's own loss, which may include a method's penalty. Rows are
    padded on the right, where padding affects no text position, with or without virtual tokens. Leaves the model in
    the mode, training or evaluation, that it was in.

    Args:
        batch_size: rows per forward pass; does not affect the result beyond rounding.
        plain: pass whole rows through the whole model, for one that gives other logits if it computes less.
        told: is told how many rows are done.
    """
    import torch

    was_training = model.training
    model.eval()
    total, count, done = 0.0, 0, 0
    lengths = [len(example.input_ids) for example in examples]
    with torch.no_grad(), base_precision(model):
        passes = Passes(model, examples, plain)
        for batch in by_length(lengths, batch_size):
            loss_sum, tokens = passes.loss_sum(collate([examples[index] for index in batch], pad_id, "right"))
            total += loss_sum
            count += tokens
            done += len(batch)
            told("loss", done, len(examples))
    model.train(was_training)
    return total / count


class Passes:
    """Forward passes over rows that compute no more than their losses need.

    The start that all rows share is read once, and the output head sees completion positions alone, some at a time,
    so that there is never a whole tensor of logits. Models that allow neither are asked for the logits of the last
    positions, or for all.

    Args:
        plain: pass whole rows through the whole model.
    """

    def __init__(self, model: Any, examples: Sequence[TokenizedRow], plain: bool = False) -> None:
        from harness.scoring.kv_cache import prefix_cache
        from harness.scoring.prefix import read_prefix, reads_in_parts, shared_prefix

        self._model, self._device = model, next(model.parameters()).device
        self._skips = can_skip_logits(model)
        self._trunk = _trunk(model) if self._skips and not plain else None
        self._common = 0
        self._prefix: Any = None
        if plain:
            return
        rows = [row.input_ids for row in examples]
        # At least one token before the first label is read with the row.
        common = shared_prefix(rows, min(_first_label(row) for row in examples) - 1)
        if common and reads_in_parts(model, max(map(len, rows))):
            self._common, self._prefix = common, prefix_cache(read_prefix(model, rows[0][:common]))

    def loss_sum(self, batch: "dict[str, torch.Tensor]") -> tuple[float, int]:
        """Summed loss (nats) and number of the labeled tokens of a batch from ``collate``, padded on the right."""
        found = self._positions(batch)
        if found is not None:
            hidden_nh, head, next_n = found
            size = max(FEWEST, CHUNK_BYTES // (4 * _vocabulary(self._model)))
            chunks = zip(hidden_nh.split(size), next_n.split(size), strict=True)
            return sum(_cross_entropy(head(hidden), following) for hidden, following in chunks), len(next_n)
        logits_btv, labels_bt = self._logits(batch)
        loss, tokens = completion_loss_sum(logits_btv, labels_bt)
        return float(loss), int(tokens)

    def completion_logits(self, batch: "dict[str, torch.Tensor]") -> "list[torch.Tensor]":
        """Of each row, the logits (t, v) that predict its labeled tokens, float32."""
        labeled_bt = batch["labels"][:, 1:] != -100
        found = self._positions(batch)
        if found is not None:
            hidden_nh, head, _ = found
            return list(head(hidden_nh).float().split(labeled_bt.sum(dim=1).tolist()))
        logits_btv, labels_bt = self._logits(batch)
        predicting_btv, next_bt = _aligned(logits_btv, labels_bt)
        return [logits[row != -100].float() for logits, row in zip(predicting_btv, next_bt, strict=True)]

    def _positions(self, batch: "dict[str, torch.Tensor]") -> "tuple[torch.Tensor, Any, torch.Tensor] | None":
        """Hidden states (n, h) at the positions that predict a label, the head for them, and the labels (n).

        None if this model's logits are not what its head makes of them: some are scaled or capped afterwards. The
        model says so itself, in the logits of the last position, which it computes anyway.
        """
        import torch

        if self._trunk is None:
            return None
        seen: list[Any] = []
        inputs, labels_bt = self._inputs(batch)
        with _watching(self._trunk, seen):
            last_b1v = self._model(**inputs, logits_to_keep=1).logits
        head = base_network(self._model).get_output_embeddings()
        hidden_bth = seen[-1][0]
        # Bit for bit: a soft cap changes small logits by less than any tolerance would notice.
        if not torch.equal(head(hidden_bth[:, -1:].contiguous()).to(last_b1v.dtype), last_b1v):
            self._trunk = None
            return None
        predicting_bth, next_bt = _aligned(hidden_bth, labels_bt)
        labeled_bt = next_bt != -100
        return predicting_bth[labeled_bt], head, next_bt[labeled_bt]

    def _logits(self, batch: "dict[str, torch.Tensor]") -> "tuple[torch.Tensor, torch.Tensor]":
        """Logits of at least the positions that matter, and the labels."""
        extra = {"logits_to_keep": positions_needed(batch)} if self._skips else {}
        inputs, labels_bt = self._inputs(batch)
        return self._model(**inputs, **extra).logits, labels_bt

    def _inputs(self, batch: "dict[str, torch.Tensor]") -> "tuple[dict[str, Any], torch.Tensor]":
        """What the model is called with, and the labels of the columns that it reads; a shared start is not read."""
        placed = {name: tensor.to(self._device) for name, tensor in batch.items()}
        labels_bt = placed.pop("labels")
        if self._prefix is None:
            return placed, labels_bt
        placed["input_ids"] = placed["input_ids"][:, self._common :]
        return {**placed, "past_key_values": self._prefix, "use_cache": True}, labels_bt[:, self._common :]


def _first_label(row: TokenizedRow) -> int:
    return row.turns[0][0] if row.turns else row.prompt_length


def _vocabulary(model: Any) -> int:
    return int(base_network(model).config.get_text_config().vocab_size)


def _trunk(model: Any) -> Any:
    """The part of the model whose output goes into the head; None if there is none, or it is spread over devices."""
    base = base_network(model)
    if len(set((getattr(base, "hf_device_map", None) or {}).values())) > 1:
        return None  # its parts pass tensors on to each other's devices
    if is_sharded(base):
        return None
    if not (hasattr(base, "get_decoder") and hasattr(base, "get_output_embeddings")):
        return None
    trunk = base.get_decoder()
    return None if trunk is base or base.get_output_embeddings() is None else trunk


@contextmanager
def _watching(module: Any, seen: list[Any]) -> Iterator[None]:
    """Collect what the module returns."""
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        yield
    finally:
        handle.remove()


def _cross_entropy(logits_nv: "torch.Tensor", next_n: "torch.Tensor") -> float:
    from torch.nn import functional

    return float(functional.cross_entropy(logits_nv.float(), next_n, reduction="sum"))


def _aligned(values_bt: "torch.Tensor", labels_bt: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """What predicts the next token at each position, and that token's label; the two are aligned at their ends."""
    length = min(values_bt.shape[1], labels_bt.shape[1])
    return values_bt[:, -length:-1], labels_bt[:, -length:][:, 1:]


def completion_loss_sum(logits_btv: "torch.Tensor", labels_bt: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed cross-entropy of the labeled tokens (nats, float32, scalar), and their number (scalar).

    Virtual tokens before the text make the logits longer than the labels, and skipped logits make them shorter; so
    the two are aligned at their ends.

    Args:
        logits_btv: [batch, time, vocabulary]; ``time`` may differ from that of the labels.
        labels_bt: [batch, time], -100 for tokens that do not count.
    """
    from torch.nn import functional

    predicting_btv, next_bt = _aligned(logits_btv, labels_bt)
    labeled_bt = next_bt != -100  # only these positions are widened to float32
    loss = functional.cross_entropy(predicting_btv[labeled_bt].float(), next_bt[labeled_bt], reduction="sum")
    return loss, labeled_bt.sum()


def completion_log_probs(logits_btv: "torch.Tensor", labels_bt: "torch.Tensor") -> "torch.Tensor":
    """Log-probability (b,) of each row's labeled tokens together, in nats, float32; aligned as in the loss."""
    import torch

    predicting_btv, next_bt = _aligned(logits_btv, labels_bt)
    labeled_bt = next_bt != -100
    logits_nv, targets_n = predicting_btv[labeled_bt].float(), next_bt[labeled_bt]
    found_n = logits_nv.gather(1, targets_n[:, None])[:, 0] - torch.logsumexp(logits_nv, dim=-1)
    sums_b = torch.zeros(len(next_bt), device=found_n.device)
    return sums_b.index_add(0, labeled_bt.nonzero()[:, 0], found_n)


def can_skip_logits(model: Any) -> bool:
    """Whether the model can compute only the logits of the last positions, and its loss from them.

    CPT needs all logits for its own loss.
    """
    base = base_network(model)
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return False
    if base.loss_type not in (None, "ForCausalLM"):
        return False
    return base is model or not hooks_of_type(model.peft_config[str(model.active_adapter)].peft_type).own_loss
