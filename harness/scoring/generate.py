"""Generate answers, greedy or sampled, in batches of similar prompt length."""

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
    """Answers to ``prompts`` (token ids), in the same order, stripped, without special tokens.

    Args:
        generation: the protocol of decoding, with ``batch_size`` in prompts.
        equal_lengths: batch prompts of one length only, so that nothing is padded.
    """
    device = next(model.parameters()).device
    model.eval()
    answers: dict[int, str] = {}
    decoding = decoding_config(generation, tokenizer)
    for batch in by_length([len(prompt) for prompt in prompts], generation.batch_size, equal=equal_lengths):
        width = max(len(prompts[index]) for index in batch)
        # Left-pad: generation continues from the last column.
        ids_bt = [[tokenizer.pad_token_id] * (width - len(prompts[i])) + list(prompts[i]) for i in batch]
        mask_bt = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
        with (
            torch.no_grad(),
            base_precision(model),
            _without_own_generation_config(model),
            _without_position_id_warning(),
        ):
            output_bt = model.generate(
                input_ids=torch.tensor(ids_bt, device=device),
                attention_mask=torch.tensor(mask_bt, device=device),
                generation_config=decoding,
            )
        texts = tokenizer.batch_decode(output_bt[:, width:], skip_special_tokens=True)
        answers.update({index: text.strip() for index, text in zip(batch, texts, strict=True)})
    return [answers[index] for index in range(len(prompts))]


def decoding_config(generation: schema.Generation, tokenizer: "PreTrainedTokenizerBase") -> Any:
    """The ``GenerationConfig`` of this protocol; nothing comes from the model's own."""
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
def _without_own_generation_config(model: Any) -> Iterator[None]:
    """Hide the model's generation_config, from which transformers fills whatever ours leaves unset.

    Qwen2.5's, for example, has a repetition penalty, which would change greedy decoding, too.
    """
    from transformers import GenerationConfig

    holders = [
        module for module in model.modules() if isinstance(vars(module).get("generation_config"), GenerationConfig)
    ]
    originals = [module.generation_config for module in holders]
    for module in holders:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, original in zip(holders, originals, strict=True):
            module.generation_config = original


@contextmanager
def _without_position_id_warning() -> Iterator[None]:
    """Silence PEFT's warning that prompt methods drop position ids, which carry nothing in batches of one length."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        yield
