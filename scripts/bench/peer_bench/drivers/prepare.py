"""Write a workload's base and rows for every contestant: called by ``scripts/bench/peers.py``.

The ids are those that the harness trains on; what the contestants make of the texts is compared with their number.
"""

import argparse
import json
from pathlib import Path

from common import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True, help="that the workload trains on, each once")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()

    from harness.data.templates import render_row

    plan, base, audited = load(given.overrides)
    rows, held = audited.splits["train"], audited.splits["validation"]
    require_rows(len(rows), given.rows)
    base.model.save_pretrained(given.folder / "base")
    base.tokenizer.save_pretrained(given.folder / "base")
    (given.folder / "rows").mkdir(parents=True, exist_ok=True)
    texts = [render_row(row.row, plan.data.template, base.tokenizer) for row in rows]
    with (given.folder / "rows" / "train.jsonl").open("w", encoding="utf-8") as file:
        for prompt, completion in texts:
            file.write(json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n")
    ids = {
        name: [{"input_ids": list(row.input_ids), "prompt_length": row.prompt_length} for row in split]
        for name, split in (("train", rows), ("held_out", held))
    }
    (given.folder / "tokens.json").write_text(json.dumps(ids), encoding="utf-8")
    lengths = [len(row.input_ids) for row in rows]
    values = {
        "tokens": sum(lengths),
        "supervised": sum(len(row.input_ids) - row.prompt_length for row in rows),
        "longest": max(lengths),
        "pad_id": int(base.tokenizer.pad_token_id),
        "eos_id": int(base.tokenizer.eos_token_id),
        "parameters": sum(parameter.numel() for parameter in base.model.parameters()),
    }
    (given.folder / "prepared.json").write_text(json.dumps(values), encoding="utf-8")


def require_rows(found: int, wanted: int) -> None:
    """Raise SystemExit if rows would be read twice by some contestants, and once by others."""
    if found < wanted:
        raise SystemExit(f"the data have {found} rows to train on, the workload needs {wanted}; lower --steps")


if __name__ == "__main__":
    main()
