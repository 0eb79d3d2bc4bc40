"""Finished runs on one base, for the stages that talk to them."""

from pathlib import Path
from typing import Any

from tests.support.runs import command, overrides, records_of, write_rows


def three_runs(model: Path, folder: Path) -> tuple[Path, list[str], list[dict[str, Any]]]:
    """Two LoRA runs of different rank and one of prompt tuning: their folder, their words, records by start."""
    runs_dir = folder / "runs"
    words = [*overrides(model, write_rows(folder / "rows", train_rows=8, others=4), runs_dir)]
    words += ["trainer.learning_rate=0.3", "trainer.max_steps=4", "scoring.generation.max_new_tokens=8"]
    for more in (["lora.r=4"], ["lora.r=8"], ["peft=prompt_tuning", "trainer.learning_rate=1.0"]):
        done = command(*words, *more)
        assert done.code == 0, done.err
    records = sorted(records_of(runs_dir).values(), key=lambda record: record["started"])
    assert len(records) == 3
    return runs_dir, words, records
