"""Runs on disk and reports of them, made without running anything."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.record import store
from harness.record.run_record import Code
from harness.report.build import Request, build_report
from harness.report.choose import FoundRun, read_runs
from harness.report.model import Report
from tests.support.configs import overridden

NASTY = "<script>alert('x')</script> & \"quoted\" \x1b[31mred\u202e =cmd|' /C calc'!A0 $x^2$ 中文 `code` |"

ROWS = [("What heals?", "rest"), ("What color?", "blue"), ("How many?", "three"), (NASTY, NASTY)]


def plan_dict(method: str = "lora", seed: int = 0, *overrides: str) -> dict[str, Any]:
    """A real plan as a record keeps it, on the embedded model and data."""
    from harness.plan.read import read_config

    return read_config(overridden(f"seed={seed}", *overrides, onto=(f"peft={method}",)))[0].as_dict()


def write_run(
    runs_dir: Path,
    method: str = "lora",
    seed: int = 0,
    *overrides: str,
    score: float = 50.0,
    answers: Sequence[str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A finished record with predictions, as a run leaves them; ``more`` replaces parts of the record."""
    from harness.plan.spec import plan_from_dict

    plan = plan_dict(method, seed, *overrides)
    fingerprint = plan_from_dict(plan).fingerprint
    record = store.start_record(runs_dir, fingerprint, method, plan, {"seed": seed})
    record.mark_finished()
    before = {"exact_match": 0.0, "loss": 4.0, "forgetting_loss": 2.0}
    after = {"exact_match": score, "loss": 4.0 - score / 50, "forgetting_loss": 2.0 + score / 100}
    content = record.as_dict() | {
        "parameters": {"total": 10**6, "trainable": 1000 * (1 + len(method)), "share": 0.01, "stored": 10},
        "times_s": {"load": 1.0, "train": 10.0 + seed},
        "memory_bytes": {"train_peak": 2**30, "score_peak": 2**29, "kind": "process_rss"},
        "adapter": {"path": "adapter", "bytes": 4096, "files": {}, "sha256": {}},
        "kept": "record",
        "training": {
            "optimizer_steps": 4,
            "tokens": 100,
            "tokens_per_s": 10.0,
            "best_step": 4,
            "curve": [
                {"step": step, "loss": 5.0 / step, "learning_rate": 0.1, "grad_norm": 1.0} for step in range(1, 5)
            ],
            "validation": [{"step": 2, "loss": 3.0}, {"step": 4, "loss": 3.0 - score / 50}],
        },
        "scores": {"before": before, "after": after, "signatures": {"exact_match": "v1"}, "cut": {}},
        "predictions": "predictions.jsonl",
        "inferred": {"dtype": "float32", "base_weights": "w" * 64},
        "audit": {"supervised_sha256": "0" * 64},
    }
    folder = runs_dir / fingerprint
    answers = answers or [
        reference if place < len(ROWS) * score / 100 else "no" for place, (_, reference) in enumerate(ROWS)
    ]
    lines = [
        {"prompt": prompt, "reference": reference, "before": "no idea", "after": answer}
        for (prompt, reference), answer in zip(ROWS, answers, strict=True)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    content |= more
    rewrite(runs_dir, content)
    return content


def rewrite(runs_dir: Path, content: dict[str, Any]) -> None:
    """Replace a record on disk; its checksum is left out, which readers accept."""
    file = store.record_path(runs_dir, content["fingerprint"])
    file.write_text(json.dumps({key: value for key, value in content.items() if key != "sha256"}), encoding="utf-8")


def three_methods(runs_dir: Path, seeds: int = 3) -> list[dict[str, Any]]:
    """Three methods, one of them with two ranks and two rates, over seeds."""
    records = []
    for seed in range(seeds):
        records.append(write_run(runs_dir, "lora", seed, "lora.r=4", score=50.0 + seed))
        records.append(write_run(runs_dir, "lora", seed, "lora.r=8", score=75.0 + seed))
        records.append(write_run(runs_dir, "ia3", seed, score=25.0 + seed))
        records.append(write_run(runs_dir, "full", seed, "trainer.learning_rate=0.001", score=90.0 - seed))
        records.append(write_run(runs_dir, "full", seed, "trainer.learning_rate=0.01", score=60.0 + seed))
    return records


def report_of(runs_dir: Path, **request: Any) -> Report:
    """The report of all runs in the folder."""
    return build_report(read_runs([runs_dir]), Request(**{"title": "Test", "command": "python -m harness", **request}))


def found(record: dict[str, Any], runs_dir: Path) -> FoundRun:
    """The record as it was found in the folder."""
    return FoundRun(record, runs_dir / record["fingerprint"])


def code(version: str) -> dict[str, Any]:
    """The code of a record, of another version."""
    return vars(Code.here()) | {"version": version}
