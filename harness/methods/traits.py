"""What a method can do. Tests hold every trait to behavior, both when it is claimed and when it is not."""

from dataclasses import dataclass, replace

NEEDS_WEIGHTS = "needs unquantized base weights"


@dataclass(frozen=True)
class Traits:
    """What a method can do at given settings; the reasons complete a sentence that begins with its name."""

    mergeable: bool = True  # into plain base weights, which then need no PEFT; a quantized base is unpacked first
    identity_at_start: bool = True  # before training the model is the base model
    nf4: bool = True  # over a base in 4 bits of bitsandbytes (QLoRA)
    int8: bool = True  # over a base in 8 bits of bitsandbytes (LLM.int8())
    checkpointing: bool = True  # gradient checkpointing
    dropout: bool = False  # has a dropout of its own
    tied_embeddings: bool = False  # trains an embedding that the output head is tied to, and keeps the tie
    multi_adapter: bool = True  # several adapters on one base
    conv1d: bool = True  # adapts GPT-2's linear layers, which transformers keeps transposed as Conv1D
    prompt_learning: bool = False  # left padding changes its answers: generate in batches of equal length
    keeps_prefix: bool = False  # its keys stand before the text in the cache: padding may push them out of a window
    token_wise: bool = True  # adapts each token by itself, wherever it stands: rows of a batch can be joined
    rewrites_base: bool = False  # writes into base weights: disabling the adapter does not restore the base
    why_unquantized: str = NEEDS_WEIGHTS  # the reason if nf4 or int8 is false
    why_no_checkpointing: str = ""  # the reason if checkpointing is false
    why_one_process: str = ""  # the reason if several processes cannot share one run
    why_unsharded: str = ""  # the reason if training cannot work on shards (FSDP, ZeRO-3)

    def unquantized(self, why: str = NEEDS_WEIGHTS) -> "Traits":
        """The same for a method that works only on an unquantized base."""
        return replace(self, nf4=False, int8=False, why_unquantized=why)


PLAIN, DROPS, NO_MERGE = Traits(), Traits(dropout=True), Traits(mergeable=False)
WHOLE = PLAIN.unquantized()  # trains copies of whole weights
FULL = replace(WHOLE, tied_embeddings=True, multi_adapter=False, rewrites_base=True)
PROMPT = Traits(mergeable=False, identity_at_start=False, prompt_learning=True, token_wise=False)  # no position ids
PREFIX = Traits(
    mergeable=False,
    identity_at_start=False,
    keeps_prefix=True,
    token_wise=False,
    checkpointing=False,
    why_no_checkpointing="keeps its prefix in the key-value cache, which gradient checkpointing turns off",
)
LYCORIS = replace(
    DROPS,
    nf4=False,
    conv1d=False,
    why_unquantized="takes its sizes from the stored weights, which 4 bits pack into bytes",
)
LINEAR = replace(WHOLE, conv1d=False)
