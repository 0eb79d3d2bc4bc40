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
    went = f"{pruned['kept']} of {pruned['compared']} configurations continued, up to {_shown(pruned['limit'])}"
    return f"validation loss {_shown(pruned['loss'])} at {where}, rank {pruned['rank']}; {went}"


def stopped_early(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Where and why trainer.early_stopping ended the run's training; None if it trained to its end."""
    found: Mapping[str, Any] | None = record.get("training", {}).get("stopped_early")
    return found


def stopping_note(records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What a comparison has to say of runs that stopped early beside others; None if there are none.

    Args:
        records: finished ones by the numbers of their rows.
    """
    stops = {name: stop for name, record in records.items() if (stop := stopped_early(record)) is not None}
    if not stops:
        return None
    parts = ", ".join(f"row {name} at step {stop['step']} of {stop['steps']}" for name, stop in stops.items())
    rest = len(records) - len(stops)
    others = "" if not rest else f"; {rest} trained to {'its' if rest == 1 else 'their'} end"
    return (
        f"stopped early on their own validation loss (trainer.early_stopping): {parts}{others}. These are finished "
        "runs, not pruned ones; their times, tokens and curves cover only the steps that they ran, under a "
        "learning-rate schedule made for all steps"
    )


def continuation_note(records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What a comparison has to say of rows whose training began with finished weights; None if there are none."""
    parts = []
    for name, record in records.items():
        source = (record.get("inferred") or {}).get("continue_from")
        if source is None:
            continue
        if "run" in source:
            cost = "" if source.get("train_s") is None else f", {source['train_s']:.0f} s"
            parts.append(f"row {name} with run {source['run']} ({source.get('optimizer_steps')} steps{cost})")
        else:
            parts.append(f"row {name} with {source['adapter']}, whose training is not known")
    if not parts:
        return None
    return (
        f"began with finished weights (trainer.continue_from): {'; '.join(parts)}. Their times, tokens and steps are "
        "of the continuation alone, with an optimizer and a schedule of its own, which is not equal to a longer run"
    )


def _shown(loss: float | None) -> str:
    return "unknown" if loss is None else f"{loss:.4g}"
