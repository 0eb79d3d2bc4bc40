"""What a method may need to know besides its own settings, and how ``null`` in a sheet is read."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault

if TYPE_CHECKING:
    from torch import Tensor

SheetValues = Mapping[str, Any]


Batch = Mapping[str, "Tensor"]  # input_ids, attention_mask and labels, each of shape (b, t)


# Fields by which methods of PEFT seed generators of their own, past the global one.
SEEDS = ("projection_prng_key", "random_seed", "random_loc_seed", "proj_seed", "projection_seed")


COUNTING_STEPS = 1000  # enough for any schedule


@dataclass(frozen=True)
class BuildContext:
    """Facts of one run."""

    optimizer_steps: int
    tokenizer_path: str
    seed: int
    hidden_size: int
    num_layers: int
    batches: Callable[[], Iterator[Batch]] | None = None  # the training rows, from the first one on each call
    vocabulary: int | None = None  # rows of the embedding; None: not known


def for_counting(context: BuildContext) -> BuildContext:
    """The same facts with enough steps for any schedule, when only parameters are counted."""
    return replace(context, optimizer_steps=max(context.optimizer_steps, COUNTING_STEPS))


def peft_kwargs(settings: SheetValues, context: BuildContext) -> dict[str, Any]:
    """Settings for PEFT: a seed that is null is the run's; another null is PEFT's own choice."""
    seeds = {name: context.seed for name in SEEDS if name in settings and settings[name] is None}
    return {name: value for name, value in settings.items() if value is not None} | seeds


def refuse_wider_than(rank: int, key: str, context: BuildContext) -> None:
    """Refuse a rank that exceeds the model's width."""
    if rank > context.hidden_size:
        raise ModelFault(f"{key}={rank} exceeds the hidden size {context.hidden_size} of the model; lower {key}")


def training_batches(context: BuildContext, what: str) -> Iterator[Batch]:
    """The training rows.

    Raises:
        ModelFault: the context has none; ``what`` says who needs them.
    """
    if context.batches is None:
        raise ModelFault(f"{what} needs the training rows, which are not read when only parameters are counted")
    return context.batches()


def frequent_tokens(context: BuildContext, number: int) -> list[int]:
    """The token ids that occur most often in the training rows, in ascending order; ties go to the lower id."""
    counts: Counter[int] = Counter()
    for batch in training_batches(context, "trainable_tokens.token_indices=null"):
        counts.update(batch["input_ids"][batch["attention_mask"].bool()].tolist())
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return sorted(ranked[:number])


def cpt_context(context: BuildContext, length: int) -> tuple[list[int], list[int]]:
    """Tokens of the first training rows and their CPT types: 2 for a prompt, 4 for a completion, + 4 per row.

    The last ``length`` tokens of as many rows as it takes, so that the context ends with a completion.
    """
    rows: list[tuple[list[int], list[bool]]] = []
    for batch in training_batches(context, "cpt.cpt_token_ids=null"):
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            present = mask.bool()
            rows.append((ids[present].tolist(), (labels[present] != -100).tolist()))
            if sum(len(row) for row, _ in rows) >= length:
                break
        else:
            continue
        break
    tokens = [token for ids, _ in rows for token in ids]
    types = [4 * index + (4 if labelled else 2) for index, (_, flags) in enumerate(rows) for labelled in flags]
    if len(tokens) < length:
        raise ModelFault(f"the training rows hold {len(tokens)} tokens; lower cpt.num_virtual_tokens={length}")
    return tokens[-length:], types[-length:]


def first_batches(context: BuildContext, number: int, what: str) -> list[Batch]:
    """At most ``number`` batches of the training rows."""
    return list(islice(training_batches(context, what), number))
