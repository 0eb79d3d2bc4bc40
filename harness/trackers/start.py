"""What every tracker is told when a run starts; all texts are redacted."""

from dataclasses import dataclass
from typing import Any

STEP, TOKENS, EPOCH = "progress/step", "progress/tokens", "progress/epoch"  # x-axes, logged with every point


@dataclass(frozen=True)
class Start:
    """One run, before its first point."""

    config: dict[str, Any]
    group: str
    name: str
    tags: list[str]
    run_id: str
