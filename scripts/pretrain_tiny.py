"""Make the base model `tiny`: train its tokenizer and pretrain it on the text of scripts/tiny_corpus.py.

    python scripts/pretrain_tiny.py            # rewrites data/tiny/; 15 minutes on 2 cores

The weights are stored in bfloat16 (half the bytes; load them in float32). Seeded: the same machine and
thread count give the same weights.
"""

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tiny_corpus import DATA, EOS, IM_END, IM_START, stream

PAD = "<|pad|>"
SEED = 11
VOCAB = 3072
SHAPE: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}
STEPS, BATCH, LENGTH = 2500, 16, 128
PEAK_LR, WARMUP, WEIGHT_DECAY = 3e-3, 60, 0.05
EARLY = 15_000  # passages, mostly glossary entries, that come first
PROMPT_SHARE = 0.15  # of the tokens of a prompt, those that are trained on
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(passages: int = 40_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text has tokens, and a wording of the corpus has few."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOS, PAD, IM_START, IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        # Four Chinese characters at most: longer merges would swallow whole sentences of the grammar.
        max_token_length=12,
        show_progress=False,
    )
    texts = ("".join(passage) for passage in itertools.islice(stream(SEED), passages))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[IM_START, IM_END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=SHAPE["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )


class Batch(NamedTuple):
    """Rows packed with passages; each array has shape (BATCH, LENGTH)."""

    ids: torch.Tensor
    labels: torch.Tensor  # -100 where nothing is trained
    passage: torch.Tensor  # running number of the passage that a token belongs to


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Packed batches without end; every row begins with a passage and its last passage may be cut.

    Of a task's prompt, which is drawn at random and cannot be foretold, only a share is labelled.
    """
    passages, chance = stream(seed, early=EARLY), random.Random(seed)
    rows: list[list[list[int]]] = []
    row: list[list[int]] = [[], [], []]
    while True:
        prompts, answers = zip(*itertools.islice(passages, 2048), strict=True)
        asked = tokenizer(list(prompts))["input_ids"]
        told = tokenizer([answer + EOS for answer in answers])["input_ids"]
        for number, (prompt, answer) in enumerate(zip(asked, told, strict=True)):
            row[0] += [*prompt, *answer]
            row[1] += [*(token if chance.random() < PROMPT_SHARE else -100 for token in prompt), *answer]
            row[2] += [number] * (len(prompt) + len(answer))
            if len(row[0]) >= LENGTH:
                rows.append([values[:LENGTH] for values in row])
                row = [[], [], []]
            if len(rows) == BATCH:
                yield Batch(*torch.tensor(rows).unbind(1))
                rows = []


def labelled_loss(model: Qwen2ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean loss over labelled positions; a token sees its own passage only, and logits are made where needed."""
    same_btt = batch.passage[:, :, None] == batch.passage[:, None, :]
    # Without this mask the model first has to learn which passage it is in, and learns little else.
    mask_b1tt = same_btt.tril()[:, None]
    states_btd = model.model(input_ids=batch.ids, attention_mask=mask_b1tt).last_hidden_state
    # The first token of a passage cannot be foretold from the one before it.
    chosen_bt = (batch.labels[:, 1:] != -100) & (batch.passage[:, 1:] == batch.passage[:, :-1])
    logits = model.lm_head(states_btd[:, :-1][chosen_bt])
    return torch.nn.functional.cross_entropy(logits, batch.labels[:, 1:][chosen_bt])


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_LR * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The architecture with random weights."""
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=VOCAB,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    return Qwen2ForCausalLM(config)


@torch.no_grad()
def heldout_loss(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Mean loss (nats per token) over data/general/heldout.jsonl, the end-of-text token included."""
    text = (DATA / "general" / "heldout.jsonl").read_text(encoding="utf-8")
    total = count = 0.0
    for line in text.splitlines():
        ids = tokenizer(json.loads(line)["text"] + EOS, return_tensors="pt")["input_ids"]
        total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def pretrain(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
    """Train the model in place with AdamW, printing the loss now and then."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98), fused=True)
    started, mean = time.monotonic(), 0.0
    for step, batch in enumerate(itertools.islice(batches(tokenizer, SEED + 1), steps)):
        loss = labelled_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        mean = 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 100 == 0:
            corrected = mean / (1 - 0.98 ** (step + 1))
            print(f"step {step + 1} loss {corrected:.3f} {time.monotonic() - started:.0f}s", flush=True)


def main() -> None:
    """Tokenizer, model, training, files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=DATA / "tiny")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {len(tokenizer)}")
    pretrain(model, tokenizer, args.steps)
    model.eval()
    loss = heldout_loss(model, tokenizer)
    print(f"held-out loss {loss:.3f} nats per token, perplexity {math.exp(loss):.2f}")
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids([EOS, IM_END])
    model.bfloat16().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    for path in args.out.iterdir():
        path.chmod(0o644)  # weights are written for their owner alone; these are to be shipped


if __name__ == "__main__":
    main()
