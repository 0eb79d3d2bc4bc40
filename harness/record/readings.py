"""What is read out of a record by more than one package."""

from collections.abc import Mapping
from typing import Any


def validation_loss(record: Mapping[str, Any]) -> float | None:
    """Validation loss (nats per completion token) of the weights that were scored; None if not measured.

    Those are the weights of ``best_step`` if the best were kept, else the last ones.
    """
    points = record["training"].get("validation") or []
    best = record["training"].get("best_step")
    losses = [point["loss"] for point in points if best is None or point["step"] == best]
    return losses[-1] if losses else None
