"""The recipe of the published lesson: transformers' Trainer, rows padded to 512 tokens, all logits, 4 rows a pass.

Called by ``scripts/bench/peers.py``. Uses transformers and PEFT alone, nothing of this project. One thing differs from
the lesson: its labels are misaligned (``lesson_collate`` in harness/data/collate.py says how), and training on other
labels could not be compared; here they are the completion and its end. That costs the same.
"""

import argparse
import json
from pathlib import Path
from typing import Any

LENGTH = 512
ROWS = 4  # of a pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", type=json.loads, help="JSON: batch, rank, alpha, targets, rate, seed")
    given = parser.parse_args()
    settings = given.settings

    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

    torch.set_num_threads(1)
    set_seed(settings["seed"])
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    model = AutoModelForCausalLM.from_pretrained(given.base, dtype=torch.float32)
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=0.0,
        target_modules=settings["targets"],
    )
    model = get_peft_model(model, lora)
    texts = [json.loads(line) for line in given.rows.read_text(encoding="utf-8").splitlines()]
    arguments = TrainingArguments(
        output_dir=str(given.out),
        num_train_epochs=1,
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=settings["batch"] // ROWS,
        learning_rate=settings["rate"],
        lr_scheduler_type="cosine",
        warmup_steps=1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=settings["seed"],
        use_cpu=True,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
    )
    Trainer(model=model, args=arguments, train_dataset=[padded(text, tokenizer) for text in texts]).train()
    model.save_pretrained(given.out)


def padded(text: dict[str, str], tokenizer: Any) -> dict[str, Any]:
    """One row of fixed length."""
    prompt = tokenizer(text["prompt"])["input_ids"]
    answer = [*tokenizer(text["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ids, labels = (prompt + answer)[:LENGTH], ([-100] * len(prompt) + answer)[:LENGTH]
    more = LENGTH - len(ids)
    return {
        "input_ids": ids + [tokenizer.pad_token_id] * more,
        "attention_mask": [1] * len(ids) + [0] * more,
        "labels": labels + [-100] * more,
    }


if __name__ == "__main__":
    main()
