"""The loss of each contestant's adapter on the same held-out rows: one evaluator for all.

Called by ``scripts/bench/peers.py``. Prints one JSON object, name to loss, ``base`` among them.
"""

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import common  # noqa: F401  finds the checkout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("results", nargs="*", help="NAME=FOLDER of an adapter, or NAME=FILE of whole weights")
    given = parser.parse_args()

    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from harness.data.rows import Row
    from harness.data.tokenize import TokenizedRow
    from harness.scoring.losses import mean_completion_loss

    torch.set_num_threads(1)
    kept = json.loads((given.prepared / "tokens.json").read_text(encoding="utf-8"))["held_out"]
    nothing = Row(0, "", "", "", "", (), None)
    rows = [TokenizedRow(tuple(each["input_ids"]), each["prompt_length"], nothing, "") for each in kept]
    pad_id = json.loads((given.prepared / "prepared.json").read_text(encoding="utf-8"))["pad_id"]

    def loss(path: Path | None) -> float:
        model: Any = AutoModelForCausalLM.from_pretrained(given.prepared / "base", dtype=torch.float32)
        if path is not None and path.is_dir():
            model = PeftModel.from_pretrained(model, path)
        elif path is not None:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            own = model.state_dict()
            fitting = {name: value[: own[name].shape[0]] for name, value in weights.items()}  # vocabularies are padded
            model.load_state_dict(fitting, strict=False)
            model.tie_weights()
        found = mean_completion_loss(model, rows, pad_id=pad_id, batch_size=8)
        del model
        gc.collect()
        return found

    named = dict(each.split("=", 1) for each in given.results)
    losses = {"base": loss(None)} | {name: loss(Path(path)) for name, path in named.items()}
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
