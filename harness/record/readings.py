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


def prune_reason(pruned: Mapping[str, Any]) -> str:
    """Why sweep.prune ended a run, in words; ``pruned`` is the field of its record."""
    where = f"evaluation {pruned['evaluation']} of {pruned['of']}"
    if pruned["loss"] is None:
        return f"at {where}: another run of its configuration failed"
    went = f"{pruned['kept']} of {pruned['compared']} configurations went on, up to {_shown(pruned['limit'])}"
    return f"validation loss {_shown(pruned['loss'])} at {where}, rank {pruned['rank']}; {went}"


def _shown(loss: float | None) -> str:
    return "unknown" if loss is None else f"{loss:.4g}"
