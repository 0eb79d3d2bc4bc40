"""Train the embedded base model on the embedded questions with plain torch and peft, as an independent check.

    python scripts/embedded/check_tiny.py                          # every method at its default settings
    python scripts/embedded/check_tiny.py --methods lora16 --lr 2e-3 5e-3 --epochs 4
    python scripts/embedded/check_tiny.py --methods full lora16 --base random

Trains on data/medicine/train.jsonl, generates greedily on one split and prints one line per run: the percentage of
rows whose first named medicine is the right one, and the wall time and CPU time of training (they differ on a busy
machine). It imports nothing from the harness, so its results can be compared with the harness's.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

DATA = Path(__file__).resolve().parents[2] / "data"
# The blank after the colon belongs to the answer: the tokenizer writes it and the first word as one token.
TEMPLATE = "Instruction: {instruction}\nInput: {input}\nAnswer:"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEFAULT_LR = {"full": 1e-3, "lora4": 5e-3, "lora8": 5e-3, "lora16": 5e-3, "ia3": 1e-1}

Row = dict[str, str]
Tokens = tuple[list[int], list[int]]  # prompt, completion with the end-of-text token


def read_split(name: str) -> list[Row]:
    """Rows of one split of the embedded questions."""
    text = (DATA / "medicine" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def tokenize(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """Token ids of each row's prompt and completion."""
    prompts = tokenizer([TEMPLATE.format(**row) for row in rows])["input_ids"]
    answers = tokenizer([" " + row["output"] + tokenizer.eos_token for row in rows])["input_ids"]
    return list(zip(prompts, answers, strict=True))


def batched(rows: list[Tokens], size: int, rng: random.Random) -> list[list[Tokens]]:
    """Batches of rows of similar length, in shuffled order; batches and order differ on every call."""
    order = sorted(rows, key=lambda row: len(row[0]) + len(row[1]) + 4 * rng.random())
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def collate(batch: list[Tokens], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded ids, mask and labels, each of shape (batch, longest); prompt tokens have no label."""
    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids, labels, mask = [], [], []
    for prompt, answer in batch:
        fill = longest - len(prompt) - len(answer)
        ids.append([*prompt, *answer, *[pad] * fill])
        labels.append([-100] * len(prompt) + answer + [-100] * fill)
        mask.append([1] * (longest - fill) + [0] * fill)
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }


def adapt(model: PreTrainedModel, method: str, targets: list[str], scale: float) -> Any:
    """The model with the method's trainable parameters; `scale` is LoRA's alpha divided by its rank."""
    if method == "full":
        return model
    if method == "ia3":
        wanted = ["k_proj", "v_proj", "down_proj"]
        return get_peft_model(model, IA3Config(target_modules=wanted, feedforward_modules=["down_proj"]))
    rank = int(method.removeprefix("lora"))
    config = LoraConfig(r=rank, lora_alpha=int(rank * scale), target_modules=targets)
    return get_peft_model(model, config)


def train(
    model: Any, rows: list[Tokens], pad: int, args: argparse.Namespace, lr: float, seed: int
) -> tuple[float, float]:
    """Train the model in place and return the wall time and CPU time in seconds.

    AdamW without weight decay; linear warmup over a tenth of the steps, then linear decay to 0.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    rng, step = random.Random(seed), 0
    started, used = time.monotonic(), time.process_time()
    total = -(-len(rows) // args.batch_size) * args.epochs
    model.train()
    for _ in range(args.epochs):
        for batch in batched(rows, args.batch_size, rng):
            factor = min((step + 1) / (0.1 * total), (total - step) / (0.9 * total), 1.0)
            optimizer.param_groups[0]["lr"] = lr * factor
            model(**collate(batch, pad)).loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return time.monotonic() - started, time.process_time() - used


@torch.no_grad()
def names_right(model: Any, rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> float:
    """Percentage of rows whose greedy answer names the right medicine first."""
    names = {row["medicine"] for row in read_split("train")}
    hits, size = 0, 36
    tokenizer.padding_side = "left"
    model.eval()
    order = sorted(rows, key=lambda row: len(row["input"]))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        inputs = tokenizer([TEMPLATE.format(**row) for row in batch], return_tensors="pt", padding=True)
        made = model.generate(**inputs, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(batch, texts, strict=True):
            named = [name for name in names if name in text]
            # A longer name may contain a shorter one: the earliest name counts, and of those the longest.
            first = min(named, key=lambda name: (text.index(name), -len(name)), default=None)
            hits += first == row["medicine"]
    return 100 * hits / len(rows)


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=[*DEFAULT_LR], help="full, ia3 or loraN")
    parser.add_argument("--model", type=Path, default=DATA / "tiny")
    parser.add_argument("--base", choices=["pretrained", "random"], default="pretrained")
    parser.add_argument("--lr", type=float, nargs="+", help="instead of each method's default")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--scale", type=float, default=2.0, help="LoRA's alpha divided by its rank")
    parser.add_argument("--targets", nargs="+", default=LINEAR)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokens, scored = tokenize(read_split("train"), tokenizer), read_split(args.split)
    for method in ["none", *args.methods]:
        runs = [(0.0, 0)] if method == "none" else []
        for lr in args.lr or [DEFAULT_LR[method]] if method != "none" else []:
            runs += [(lr, seed) for seed in args.seeds]
        for lr, seed in runs:
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
            if args.base == "random":
                model = AutoModelForCausalLM.from_config(model.config).float()
            seconds = used = 0.0
            if method != "none":
                model = adapt(model, method, args.targets, args.scale)
                seconds, used = train(model, tokens, tokenizer.pad_token_id, args, lr, seed)
            score = names_right(model, scored, tokenizer)
            count = sum(p.numel() for p in model.parameters() if p.requires_grad) if method != "none" else 0
            print(
                f"{method:7} base={args.base} lr={lr:g} seed={seed} trained={count} "
                f"{seconds:.1f}s cpu={used:.1f}s {args.split}={score:.1f}%",
                flush=True,
            )


if __name__ == "__main__":
    main()
