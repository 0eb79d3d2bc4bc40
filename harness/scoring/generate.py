"""Answers: greedy or sampled generation in batches of similar length."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from harness.config import schema
from harness.data.collate import by_length
from harness.models.device import base_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        with torch.no_grad(), base_precision(model), _without_preferences(model), _without_position_ids():
            output_bt = model.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=decoding,
            )
        texts = tokenizer.batch_decode(output_bt[:, width:], skip_special_tokens=True)
        answers.update({index: text.strip() for index, text in zip(batch, texts, strict=True)})
    return [answers[index] for index in range(len(prompts))]


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
