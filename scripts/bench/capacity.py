#!/usr/bin/env python
"""Measure what LoRA stores of made facts: how many bits a trained number holds, and at which rank size binds.

    python scripts/bench/capacity.py            # an hour of one core; goes on where it was stopped
    python scripts/bench/capacity.py --sets hex,digits

A fact is a key of four letters with a value of random characters, so that its bits are known. The bases are small
transformers made here: they know how to look up a key, because they have learned other facts, and that the values of
unknown keys are random. Two sets of facts calibrate ``plan.capacity``: bits a trained number, at ranks too small for
the set, by how often each fact is seen. Three more check it: the rank that it predicts against the smallest one that
stores 90 % of the bits. Figures go to docs/results/capacity.jsonl, one line a training;
scripts/docs/planning_table.py writes the tables of docs/planning.md.
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lines
import torch
from planning import scratch, trained
from plans import read_plan

from harness.data import dataset
from harness.data.tokenize import TokenizedRow, tokenize_splits
from harness.estimate.capacity import Demand, demand_of
from harness.estimate.plan_counter import PlanCounter
from harness.frozen import freeze
from harness.models.base import Base, load_base
from harness.plan.spec import Plan
from harness.runtime.caches import cache_folder
from harness.scoring.losses import mean_completion_loss

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "capacity.jsonl"
CACHE = cache_folder() / "capacity"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
HEX = "0123456789abcdef"
KEY, VALUE = 4, 8  # characters of a key, and of a value that the bases have learned
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BATCH = 64
RATE = 1e-2


@dataclass(frozen=True)
class Shape:
    """A base, and what it has learned."""

    hidden: int
    layers: int
    facts: int = 2048
    learning: int = 3000  # steps of 128 facts, the same ones again and again
    unlearning: int = 500  # steps of as many, half of them new ones, so that the base does not invent values


BASES = {"small": Shape(hidden=64, layers=2), "wide": Shape(hidden=96, layers=2)}


@dataclass(frozen=True)
class Facts:
    """A set of facts, and what is trained on it."""

    use: str  # calibrates, checks
    facts: int
    alphabet: str
    length: int
    passes: tuple[int, ...]
    ranks: tuple[int, ...]
    base: str = "small"
    targets: tuple[str, ...] = LINEAR

    @property
    def bits(self) -> float:
        """Of all values together."""
        return self.facts * self.length * math.log2(len(self.alphabet))


SETS = {
    "hex": Facts("calibrates", 256, HEX, 8, (25, 50, 100, 200), (1, 2, 4, 8)),
    "digits": Facts("calibrates", 380, "0123456789", 8, (25, 50, 100, 200), (1, 2, 4, 8)),
    "many": Facts("checks", 1000, HEX, 8, (200,), (4, 8, 16)),
    "attention": Facts("checks", 300, HEX, 8, (100,), (1, 2, 4, 8, 16, 32), targets=("q_proj", "v_proj", "o_proj")),
    "wide": Facts("checks", 600, "01234567", 8, (200,), (1, 2, 4, 8), base="wide"),
}


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS), help="separated by commas")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = {(line["set"], line["passes"], line["rank"]) for line in lines.read(given.results)}
    for name in given.sets:
        for line in measured(name, known):
            lines.append(given.results, line)
            print(
                f"{name}, {line['passes']} passes, rank {line['rank']}: {line['stored']:,.0f} of {line['bits']:,.0f} "
                f"bits in {line['trained']:,} numbers, {line['seconds']:.0f} s",
                flush=True,
            )


def measured(name: str, known: set[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
    """One line for each training of a set that is not known."""
    made = SETS[name]
    wanted = [(passes, rank) for passes in made.passes for rank in made.ranks if (name, passes, rank) not in known]
    if not wanted:
        return
    folder = base_folder(made.base)
    with scratch() as work:
        write_rows(work, facts(made.facts, made.alphabet, made.length, seed=1))
        base: Base | None = None
        demand: Demand | None = None
        for passes, rank in wanted:
            plan = plan_of(made, folder, work, passes, rank)
            base = base or load_base(plan.model)
            demand = demand or demand_of(plan, base)
            started = time.monotonic()
            left = bits_left(plan, base)
            yield {
                **{"set": name, "use": made.use, "base": made.base, "facts": made.facts, "length": made.length},
                **{"symbols": len(made.alphabet), "targets": list(made.targets), "passes": passes, "rank": rank},
                **{"trained": PlanCounter().count(plan).trainable, "bits": demand.bits, "random_bits": made.bits},
                **{"stored": demand.bits - left, "seconds": time.monotonic() - started},
            }


def plan_of(made: Facts, base: Path, rows: Path, passes: int, rank: int) -> Plan:
    """Train on all facts, with nothing between the steps."""
    plan, _ = read_plan(
        [
            *("peft=lora", f"lora.r={rank}", "lora.lora_alpha=16", f"lora.target_modules=[{','.join(made.targets)}]"),
            *("model=hub", "model.source=folder", f"model.path={base}", "data=alpaca"),
            *(f"data.path={rows}", "data.splits={train: train.jsonl, validation: validation.jsonl, test: test.jsonl}"),
            *(
                "data.template='{{ instruction }} {{ output }}'",
                f"trainer.epochs={passes}",
                f"trainer.batch_size={BATCH}",
            ),
            *(f"trainer.learning_rate={RATE}", "trainer.threads=1"),
        ]
    )
    return replace(plan, trainer=freeze(replace(plan.trainer, evaluations=0, keep_best=False)))


def bits_left(plan: Plan, base: Base) -> float:
    """What the trained adapter still lacks of the rows."""
    rows = rows_of(plan, base)
    model = trained(plan, base, rows)
    nats = mean_completion_loss(model, rows, pad_id=int(base.tokenizer.pad_token_id), batch_size=BATCH)
    return nats / math.log(2) * sum(len(row.input_ids) - row.prompt_length for row in rows)


def rows_of(plan: Plan, base: Base) -> list[TokenizedRow]:
    return list(tokenize_splits(dataset.read_splits(plan.data), plan.data, base.tokenizer).splits["train"])


def facts(number: int, alphabet: str, length: int, seed: int) -> list[tuple[str, str]]:
    """Keys, none of them twice, and their values."""
    draw = random.Random(seed)
    keys: dict[str, None] = {}
    while len(keys) < number:
        keys["".join(draw.choices(LETTERS, k=KEY))] = None
    return [(key, "".join(draw.choices(alphabet, k=length))) for key in keys]


def write_rows(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    """The facts as training rows, and a row for each of the other splits, which the harness wants."""
    for split, pairs in {"train": rows, "validation": [("a split", "0")], "test": [("another", "0")]}.items():
        texts = [json.dumps({"instruction": key, "input": "", "output": value}) + "\n" for key, value in pairs]
        (folder / f"{split}.jsonl").write_text("".join(texts), encoding="utf-8")


def base_folder(name: str) -> Path:
    """The base as transformers saves it; made at first, in three minutes of one core."""
    shape, folder = BASES[name], CACHE / name
    if not (folder / "model.safetensors").exists():
        print(f"making the base {name} in {folder}", flush=True)
        make_base(shape, folder)
    return folder


def make_base(shape: Shape, folder: Path) -> None:
    """Teach a new model facts of its own, then that unknown keys have random values."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = bytes_tokenizer()
    torch.manual_seed(5)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=shape.hidden, intermediate_size=3 * shape.hidden,
            num_hidden_layers=shape.layers, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.05,  # with the usual 0.02 it takes thousands of steps more until keys are looked up
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    own = as_ids(tokenizer, facts(shape.facts, HEX, VALUE, seed=9))
    teach(model, own, shape.learning, 3e-3, lambda: None)
    draw = iter(range(10_000, 10_000 + shape.unlearning))
    teach(model, own, shape.unlearning, 2e-3, lambda: as_ids(tokenizer, facts(64, HEX, VALUE, seed=next(draw))))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def bytes_tokenizer() -> Any:
    """One token for each byte, so that each character of a value is one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<eos>", "<pad>"]
    vocabulary = {text: number for number, text in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])


def as_ids(tokenizer: Any, rows: Sequence[tuple[str, str]]) -> torch.Tensor:
    """Token ids (n, t) of facts whose values have one length."""
    return torch.tensor([[*tokenizer.encode(f"{key} {value}"), tokenizer.eos_token_id] for key, value in rows])


def teach(model: Any, own_nt: torch.Tensor, steps: int, rate: float, new: Any) -> None:
    """Steps of 128 facts: the base's own, or half of them and the ones that ``new`` gives."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * max(0.02, (1 + math.cos(math.pi * step / steps)) / 2)
    )
    for _ in range(steps):
        others = new()
        chosen = own_nt[torch.randint(len(own_nt), (128 if others is None else 64,))]
        ids_bt = chosen if others is None else torch.cat([chosen, others])
        logits = model(input_ids=ids_bt[:, :-1]).logits[:, KEY - 1 :]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids_bt[:, KEY:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
