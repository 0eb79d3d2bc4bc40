"""Direct preference optimization (DPO, Rafailov et al. 2023, arXiv:2305.18290), from pairs of answers.

The loss of a pair is ``-log sigmoid(beta d)``: d is how much more the log-probability of the chosen answer has risen
over the reference's than that of the rejected one. With label smoothing e, the share of pairs that are thought to be
the wrong way round, it is ``-(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d)`` (conservative DPO).
Log-probabilities are sums over the answer and its end, not means.

The reference's log-probabilities are computed once, before training, for all pairs: of the untouched base, or of the
weights with which training begins (``trainer.continue_from``). So training holds no second model, and a step has no
second pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.config.schema import Dpo
from harness.data.collate import by_length, collate, with_needed_logits
from harness.data.tokenize import TokenizedRow
from harness.models.device import base_precision
from harness.scoring.losses import can_skip_logits, completion_log_probs

if TYPE_CHECKING:
    import torch

Batch = dict[str, Any]

PLACES = "places"  # of a batch: which pairs of the training rows it holds


def both(rows: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The chosen answers of these pairs, then the rejected ones."""
    return [*rows, *(row.with_rejected() for row in rows)]


def numbered(rows: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The pairs with their places, by which a batch finds their reference."""
    return [replace(row, place=place) for place, row in enumerate(rows)]


def collate_pairs(rows: Sequence[TokenizedRow], pad_id: int) -> Batch:
    """A batch of pairs (2b, t): the chosen answers, then the rejected ones, with the places of the pairs (b,)."""
    import torch

    return {**collate(both(rows), pad_id, "right"), PLACES: torch.tensor([row.place for row in rows])}


@dataclass(frozen=True)
class Pairs:
    """What a policy makes of pairs; each is of shape (b,), nats."""

    losses: "torch.Tensor"
    margins: "torch.Tensor"  # beta d: how much more the chosen answer is rewarded than the rejected one

    @property
    def correct(self) -> "torch.Tensor":
        """How many of them are on the right side."""
        return (self.margins > 0).sum()


def preference(policy_2b: "torch.Tensor", reference_2b: "torch.Tensor", settings: Dpo) -> Pairs:
    """Loss and margin of each pair, from the log-probabilities of chosen, then rejected answers."""
    from torch.nn import functional

    chosen, rejected = (policy_2b - reference_2b).chunk(2)
    margins = settings.beta * (chosen - rejected)
    smoothing = settings.label_smoothing
    losses = -(1 - smoothing) * functional.logsigmoid(margins)
    if smoothing:
        losses = losses - smoothing * functional.logsigmoid(-margins)
    return Pairs(losses, margins)


def log_probs(model: Any, batch: Batch) -> "torch.Tensor":
    """Log-probability (2b,) of each row's labeled tokens together, in nats, float32."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "logits_to_keep") if name in batch}
    return completion_log_probs(model(**inputs, use_cache=False).logits, batch["labels"])


def reference_log_probs(model: Any, rows: Sequence[TokenizedRow], pad_id: int, batch_size: int) -> "torch.Tensor":
    """Of each pair, the log-probabilities (n, 2) of chosen and rejected answer; the model is left in its mode."""
    import torch

    device = next(model.parameters()).device
    found = torch.zeros(len(rows), 2)
    lengths = [max(len(row.input_ids), len(row.rejected_ids)) for row in rows]
    was_training, skips = model.training, can_skip_logits(model)
    model.eval()
    with torch.no_grad(), base_precision(model):
        for places in by_length(lengths, batch_size):
            batch = collate(both([rows[place] for place in places]), pad_id, "right")
            batch = with_needed_logits(batch) if skips else batch
            placed = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
            found[places] = torch.stack(log_probs(model, placed).cpu().chunk(2), dim=1)
    model.train(was_training)
    return found


class Preferences:
    """DPO of one training: settings, the reference of its pairs, and figures since the last point of the curve."""

    def __init__(self, settings: Dpo, training_n2: "torch.Tensor", validation_n2: "torch.Tensor") -> None:
        self._settings, self._training_n2, self._validation_n2 = settings, training_n2, validation_n2
        self._margin, self._correct, self._pairs = 0.0, 0, 0

    def loss(self, model: Any, batch: Batch, pairs_in_step: Any) -> "torch.Tensor":
        """The losses of the batch's pairs over the number of pairs in the whole optimizer step."""
        inputs = dict(batch)
        places = inputs.pop(PLACES).cpu()
        policy_2b = log_probs(model, inputs)
        reference_2b = self._training_n2[places].T.flatten().to(policy_2b.device)
        found = preference(policy_2b, reference_2b, self._settings)
        self._margin += float(found.margins.detach().sum())
        self._correct += int(found.correct)
        self._pairs += len(places)
        return found.losses.sum() / (len(places) if pairs_in_step is None else pairs_in_step)

    def measure(self, model: Any, rows: Sequence[TokenizedRow], pad_id: int, batch_size: int) -> dict[str, float]:
        """Mean loss and margin, and the share of pairs on the right side, of the validation rows."""
        policy = reference_log_probs(model, rows, pad_id, batch_size)
        found = preference(policy.T.flatten(), self._validation_n2.T.flatten(), self._settings)
        return {
            "loss": float(found.losses.double().mean()),
            "margin": float(found.margins.double().mean()),
            "accuracy": int(found.correct) / len(rows),
        }

    def figures(self) -> dict[str, float]:
        """Mean margin and accuracy of the pairs since this was last asked."""
        if not self._pairs:
            return {}
        found = {"margin": self._margin / self._pairs, "accuracy": self._correct / self._pairs}
        self._margin, self._correct, self._pairs = 0.0, 0, 0
        return found

    def state(self) -> list[float]:
        """For a checkpoint."""
        return [self._margin, self._correct, self._pairs]

    def load(self, state: Sequence[float]) -> None:
        """Restore what ``state`` gave."""
        self._margin, self._correct, self._pairs = float(state[0]), int(state[1]), int(state[2])


def pairs_in(batches: Sequence[Batch]) -> int:
    """Pairs of these batches together."""
    return sum(len(batch[PLACES]) for batch in batches)
