"""Make the base model `tiny`: train its tokenizer, then pretrain it on the text of scripts/embedded/tiny_corpus.py.

    python scripts/embedded/pretrain_tiny.py            # rewrites data/tiny/ in about 15 minutes on 2 cores

The weights are stored in bfloat16 (half the size; load them in float32). Seeded: the same machine and number of
threads give the same weights.
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
EARLY = 15_000  # passages at the start that are mostly glossary entries
PROMPT_SHARE = 0.15  # fraction of prompt tokens that are trained on
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(passages: int = 40_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: encodes any text, and the phrases of the corpus in few tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOS, PAD, IM_START, IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        # At most four Chinese characters: longer merges would turn whole sentences of the grammar into one token.
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
    labels: torch.Tensor  # -100: not trained on
    passage: torch.Tensor  # number of the passage that a token belongs to


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """An endless stream of packed batches; every row starts with a new passage, and its last passage may be cut.

    Prompts are drawn at random and cannot be predicted, so only a fraction of their tokens is labeled.
    """
    passages, chance = stream(seed, early=EARLY), random.Random(seed)
    rows: list[list[list[int]]] = []
    row: list[list[int]] = [[], [], []]
    while True:
        prompts, answers = zip(*itertools.islice(passages, 2048), strict=True)
        prompt_ids = tokenizer(list(prompts))["input_ids"]
        answer_ids = tokenizer([answer + EOS for answer in answers])["input_ids"]
        for number, (prompt, answer) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
            row[0] += [*prompt, *answer]
            row[1] += [*(token if chance.random() < PROMPT_SHARE else -100 for token in prompt), *answer]
            row[2] += [number] * (len(prompt) + len(answer))
            if len(row[0]) >= LENGTH:
                rows.append([values[:LENGTH] for values in row])
                row = [[], [], []]
            if len(rows) == BATCH:
                yield Batch(*torch.tensor(rows).unbind(1))
                rows = []


def labeled_loss(model: Qwen2ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean loss over labeled positions; a token attends only to its own passage. Computes only the needed logits."""
    same_btt = batch.passage[:, :, None] == batch.passage[:, None, :]
    # Without this mask the model spends its capacity on telling passages apart.
    mask_b1tt = same_btt.tril()[:, None]
    states_btd = model.model(input_ids=batch.ids, attention_mask=mask_b1tt).last_hidden_state
    # The first token of a passage cannot be predicted from the previous passage.
    chosen_bt = (batch.labels[:, 1:] != -100) & (batch.passage[:, 1:] == batch.passage[:, :-1])
    logits = model.lm_head(states_btd[:, :-1][chosen_bt])
    return torch.nn.functional.cross_entropy(logits, batch.labels[:, 1:][chosen_bt])


def learning_rate(step: int, steps: int) -> float:
    """Linear warmup, then cosine decay to a twentieth of the peak."""
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
    """Mean loss (nats per token) over data/general/heldout.jsonl, including the end-of-text token."""
    text = (DATA / "general" / "heldout.jsonl").read_text(encoding="utf-8")
    total = count = 0.0
    for line in text.splitlines():
        ids = tokenizer(json.loads(line)["text"] + EOS, return_tensors="pt")["input_ids"]
        total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def pretrain(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
    """Train the model in place with AdamW; print the loss every 100 steps."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98), fused=True)
    started, mean = time.monotonic(), 0.0
    for step, batch in enumerate(itertools.islice(batches(tokenizer, SEED + 1), steps)):
        loss = labeled_loss(model, batch)
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
    """Train the tokenizer and the model and write both."""
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
        path.chmod(0o644)  # save_pretrained makes files readable only by their owner; these ship with the project


if __name__ == "__main__":
    main()
