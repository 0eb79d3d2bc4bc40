"""Records as a table reads them, and tables of them."""

from typing import Any

from harness.report.cells import TableCell, setting_of
from harness.report.table import Table, build_table

BEFORE = {"rouge_l": 2.25, "exact_match": 0.0, "loss": 4.0, "perplexity": 54.598}
AFTER = {"rouge_l": 62.3, "exact_match": 0.0, "loss": 1.5, "perplexity": 4.4817}


def a_record(fingerprint: str, method: str = "lora", **more: Any) -> dict[str, Any]:
    """The parts of a finished record that a table reads."""
    return {
        "fingerprint": fingerprint,
        "method": method,
        "status": "finished",
        "plan": {"method": method, "settings": {"r": 8}, "learning_rate": 1e-3, "seed": 1},
        "code": {"version": "0" * 16},
        "device": {"type": "cpu", "name": "cpu"},
        "audit": {"supervised_sha256": "00"},
        "parameters": {
            "total": 10**8,
            "trainable": 1_234_567,
            "share": 0.01234567,
            "trainable_final": None,
            "stored": 5,
        },
        "adapter": {"path": "adapter", "bytes": 4_000, "files": []},
        "times_s": {"train": 20.25},
        "memory_bytes": {"train_peak": 2**30, "score_peak": 2**29, "kind": "process_rss"},
        "training": {"tokens_per_s": 98.8, "best_step": None, "validation": [{"step": 2, "loss": 2.5}]},
        "scores": {"before": dict(BEFORE), "after": dict(AFTER), "signatures": {"rouge_l": "v1"}},
        "error": None,
    } | more


def grid(*overrides: str) -> list[TableCell]:
    """Cells of a grid; all with ``peft=ia3`` share one run."""
    cells = []
    for words in overrides:
        method = words.split()[0].removeprefix("peft=")
        fingerprint = "ia3" if method == "ia3" else words.replace("=", "").replace(" ", "")
        cells.append(TableCell(words, fingerprint, method, setting_of(words, method)))
    return cells


SIX = grid(*(f"peft={method} lora.r={r}" for method in ("lora", "ia3") for r in (4, 8, 16)))


def six() -> Table:
    """Six cells of four finished runs."""
    return build_table(SIX, {cell.fingerprint: a_record(cell.fingerprint, cell.method) for cell in SIX})
