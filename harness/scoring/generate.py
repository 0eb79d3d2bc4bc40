"""Generate answers, greedy or sampled, in batches of similar prompt length."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.config import schema
from harness.data.collate import by_length
from harness.models.device import base_precision
from harness.scoring.decode import greedy
from harness.scoring.losses import Told, untold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    text: str  # as ``answer_text`` writes it
    cut: bool  # it reached ``max_new_tokens`` before an end


def generate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    generation: schema.Generation,
    *,
    stops: Sequence[int],
    equal_lengths: bool,
    refill: bool = False,
    told: Told = untold,
) -> list[Answer]:
    """Answers to ``prompts`` (token ids), in the same order.

    Args:
        generation: the protocol of decoding, with ``batch_size`` in prompts.
        stops: ids that end an answer, at least one.
        equal_lengths: batch prompts of one length only, so that nothing is padded.
        refill: replace each prompt of a batch when its answer ends; for greedy decoding, and models of which
            ``check_batches`` says so.
        told: is told how many prompts are answered.
    """
    model.eval()
    answers: dict[int, Answer] = {}
    if refill:
        limit = generation.max_new_tokens

        def ended(prompt: int, ids: list[int]) -> None:
            answers[prompt] = Answer(answer_text(ids, tokenizer), cut=len(ids) == limit)
            told("answer", len(answers), len(prompts))

        greedy(model, prompts, limit=limit, stops=stops, places=generation.batch_size, ended=ended)
        return [answers[index] for index in range(len(prompts))]
    decoding = decoding_config(generation, tokenizer, stops)
    for batch in by_length([len(prompt) for prompt in prompts], generation.batch_size, equal=equal_lengths):
        output_bt = continuations(model, [prompts[index] for index in batch], decoding).sequences
        for index, ids in zip(batch, output_bt.tolist(), strict=True):
            length = next((at for at, number in enumerate(ids) if number in stops), len(ids))
            cut = length == len(ids) and len(ids) >= generation.max_new_tokens
            answers[index] = Answer(answer_text(ids[:length], tokenizer), cut)
        told("answer", len(answers), len(prompts))
    return [answers[index] for index in range(len(prompts))]


def continuations(model: Any, prompts: Sequence[Sequence[int]], decoding: Any, streamer: Any = None) -> Any:
    """What ``generate`` of transformers returns for one batch, its ``sequences`` without the prompts.

    Args:
        decoding: a ``GenerationConfig``; nothing comes from the model's own.
        streamer: gets the ids of a single prompt and of its answer as they are written.
    """
    device = next(model.parameters()).device
    width = max(len(prompt) for prompt in prompts)
    # Left-pad: generation continues from the last column.
    ids_bt = [[decoding.pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask_bt = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with (
        torch.no_grad(),
        base_precision(model),
        _without_own_generation_config(model),
        _without_position_id_warning(),
    ):
        output = model.generate(
            input_ids=torch.tensor(ids_bt, device=device),
            attention_mask=torch.tensor(mask_bt, device=device),
            generation_config=decoding,
            **({} if streamer is None else {"streamer": streamer}),
        )
    output.sequences = output.sequences[:, width:]
    return output


def answer_text(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text of these ids, stripped; special tokens stay, and no space is tidied away.

    References keep theirs, so an answer that lost them could not equal a reference that holds any.
    """
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text).strip()


def reference_text(reference: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """A reference as the model would write it: with special tokens in it, what its own ids decode to.

    Some decoders put spaces around special tokens; the answer then has them, and so must the reference.
    """
    ids = tokenizer(reference, add_special_tokens=False, verbose=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return answer_text(ids, tokenizer) if any(number in special for number in ids) else reference


def decoding_config(generation: schema.Generation, tokenizer: "PreTrainedTokenizerBase", stops: Sequence[int]) -> Any:
    """The ``GenerationConfig`` of this protocol; nothing comes from the model's own."""
    from transformers import GenerationConfig

    sampling = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        do_sample=generation.do_sample,
        **(sampling if generation.do_sample else {}),
        use_cache=True,
        return_dict_in_generate=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(stops),
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
