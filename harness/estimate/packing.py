"""How many runs can share a pass: by the memory that each adds, and by what a pass is worth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.models.network import kept_numbers

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Tokens of a pass, padding included, over all of its runs, above which one pass for several runs is hardly faster than
# one after another: small matrices leave a processor idle between them, large ones do not fit its cache. Read off
# scripts/bench/packed.py --gate, as the largest figure at which packing won by a fifth on rows of equal length: a run
# alone has no padding on a CPU, a pack has. A GPU has no such limit.
TOKENS_THAT_PAY = {"cpu": 768}

# Of the memory that is free when the first run has its first batch, how much the pack may take.
MEMORY_SHARE = 0.7

# By position whose logits are needed, in units of the vocabulary: logits, their exponentials, their gradient.
VOCABULARY_PER_POSITION = 3

# Of each trained number: its value, gradient and AdamW's two moments, in float32.
BYTES_PER_TRAINED = 16


@dataclass(frozen=True)
class Together:
    """How many runs share a pass at most, and why not more, in words."""

    runs: int
    why: str


def runs_together(
    config: "PretrainedConfig",
    device_type: str,
    *,
    tokens: float,
    most_tokens: int,
    trained: int,
    free_bytes: int,
    element_bytes: int = 4,
    logits_kept: bool = True,
    wanted: int | None = None,
) -> Together:
    """How many runs like this one share a pass.

    Args:
        tokens: of a batch of one run on average, with padding.
        most_tokens: of its largest batch.
        trained: numbers that one run trains.
        free_bytes: on the device, while the first run is ready to train.
        element_bytes: of the numbers that a pass computes with.
        logits_kept: whether the logits of a whole pass exist at once.
        wanted: by the user, instead of what pays.
    """
    each = bytes_of_run(config, most_tokens, trained, element_bytes, logits_kept)
    by_memory = max(1, int(MEMORY_SHARE * free_bytes / each))
    limit = TOKENS_THAT_PAY.get(device_type)
    paying = None if limit is None else max(1, int(limit // tokens))
    most = wanted or paying
    if most is None or by_memory < most:
        return Together(by_memory, f"each takes about {_mib(each)} of {_mib(free_bytes)} that are free")
    if wanted:
        return Together(wanted, f"hydra.launcher.engine.max_runs={wanted}")
    return Together(most, f"a batch has {tokens:,.0f} tokens, and beyond {limit} in a pass it is not faster here")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def bytes_of_run(
    config: "PretrainedConfig", tokens: int, trained: int, element_bytes: int = 4, logits_kept: bool = True
) -> int:
    """Memory that one more run takes within a pass over so many of its tokens: activations, logits, adapter."""
    text = config.get_text_config()
    logits = VOCABULARY_PER_POSITION * int(text.vocab_size) * 4 if logits_kept else 0  # losses are float32
    return tokens * (kept_numbers(config) * element_bytes + logits) + trained * BYTES_PER_TRAINED
