"""Scores of a model under one protocol: losses, generated answers and their metrics."""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness import metrics, schema
from harness.errors import DataFault, RunFault
from harness.losses import arithmetic, mean_completion_loss
from harness.tokens import Example, by_length

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Scores:
    """Values by name (loss in nats per completion token, metrics 0..100), and what each metric was."""

    values: dict[str, float]
    signatures: dict[str, str]
    answers: list[str] = field(repr=False)


def score(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    held_out: Sequence[Example],
    scoring: schema.Scoring,
    *,
    equal_lengths: bool,
    seed: int,
) -> Scores:
    """Score ``examples`` by loss and by generated answers, and ``held_out`` text by loss alone.

    Args:
        equal_lengths: generate in batches of one prompt length, for methods that left padding disturbs.
        seed: of sampled decoding; greedy decoding draws nothing.

    Raises:
        RunFault: the loss on ``examples`` is not finite, so that no score would mean anything.
    """
    pad_id = int(tokenizer.pad_token_id)
    loss = mean_completion_loss(model, examples, pad_id=pad_id, batch_size=scoring.loss_batch_size)
    if not math.isfinite(loss):
        raise RunFault(
            f"the loss on scoring.split={scoring.split} is not finite ({loss}); lower trainer.learning_rate, or use "
            "model.dtype=float32 if the base model's own loss is not finite"
        )
    values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if held_out:
        values["forgetting_loss"] = mean_completion_loss(
            model, held_out, pad_id=pad_id, batch_size=scoring.loss_batch_size
        )
    if not scoring.metrics:
        return Scores(values, {}, [])
    torch.manual_seed(seed)
    answers = generate(
        model,
        tokenizer,
        [prompt_of(example) for example in examples],
        scoring.generation,
        equal_lengths=equal_lengths,
    )
    references = [[example.row.output] for example in examples]
    targets = [example.row.target or "" for example in examples]
    found, signatures = metrics.score(scoring.metrics, answers, references, targets, scoring.tokenize)
    return Scores(values | found, signatures, answers)


def generate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    generation: schema.Generation,
    *,
    equal_lengths: bool,
) -> list[str]:
    """Answers to prompts of token ids, in their order, without special tokens and outer white space."""
    device = next(model.parameters()).device
    model.eval()
    answers: dict[int, str] = {}
    decoding = _decoding(generation, tokenizer)
    for batch in by_length([len(prompt) for prompt in prompts], generation.batch_size, equal=equal_lengths):
        width = max(len(prompts[index]) for index in batch)
        # Left-pad: generation continues from the last column.
        rows = [[tokenizer.pad_token_id] * (width - len(prompts[i])) + list(prompts[i]) for i in batch]
        mask = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
        with torch.no_grad(), arithmetic(model), _without_preferences(model), _without_position_ids():
            output_bt = model.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=decoding,
            )
        texts = tokenizer.batch_decode(output_bt[:, width:], skip_special_tokens=True)
        answers.update({index: text.strip() for index, text in zip(batch, texts, strict=True)})
    return [answers[index] for index in range(len(prompts))]


def prompt_of(example: Example) -> list[int]:
    """The prompt's token ids: what stands before the completion."""
    return list(example.input_ids[: example.prompt_length])


def held_out_examples(
    path: Path, limit: int | None, tokenizer: "PreTrainedTokenizerBase", max_tokens: int
) -> list[Example]:
    """General text as examples whose first token is prompt and the rest is scored.

    Raises:
        DataFault: a line is no JSON object with a ``text`` of two tokens or more.
    """
    from harness.data import Row

    examples = []
    # Not splitlines(): JSON strings may hold other line separators of Unicode.
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    for number, line in enumerate(lines[:limit], 1):
        try:
            text = json.loads(line)["text"]
            ids = tuple(tokenizer(text, verbose=False)["input_ids"][:max_tokens])
        except (ValueError, TypeError, KeyError) as error:
            raise DataFault(
                f"scoring.forgetting: {path}, text {number} is no JSON object with a `text` ({error}); mend the file "
                "or set scoring.forgetting=null"
            ) from error
        if len(ids) < 2:
            raise DataFault(f"scoring.forgetting: {path}, text {number} has no token to predict; leave it out")
        examples.append(Example(ids, 1, Row(number, str(path), "", "", text, (), None), ""))
    return examples


def _decoding(generation: schema.Generation, tokenizer: "PreTrainedTokenizerBase") -> Any:
    """Decoding by this protocol alone, whatever the model's own generation_config prefers."""
    from transformers import GenerationConfig

    sampling = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=generation.do_sample,
        **(sampling if generation.do_sample else {}),
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )


@contextmanager
def _without_preferences(model: Any) -> Iterator[None]:
    """Hide the model's generation_config, from which transformers fills whatever ours leaves unset.

    Qwen2.5's, for one, carries a repetition penalty, which would bend greedy decoding too.
    """
    from transformers import GenerationConfig

    holders = [
        module for module in model.modules() if isinstance(vars(module).get("generation_config"), GenerationConfig)
    ]
    kept = [module.generation_config for module in holders]
    for module in holders:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, preferences in zip(holders, kept, strict=True):
            module.generation_config = preferences


@contextmanager
def _without_position_ids() -> Iterator[None]:
    """PEFT tells prompt methods that it drops position ids; in batches of one length they say nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        yield
