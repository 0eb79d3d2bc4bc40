"""What a method can do: the vocabulary, and the types of ``peft=library`` that have no sheet to carry it.

The sheets' own traits stand in ``harness.methods.METHODS``; tests hold every trait to behaviour, both where it is
claimed and where it is not.
"""

from dataclasses import dataclass, replace

NEEDS_WEIGHTS = "needs the numbers of the base weights, which a quantised base keeps in a few bits"


@dataclass(frozen=True)
class Traits:
    """What a method can do at its sheet's settings."""

    mergeable: bool = True  # into plain base weights, which then need no PEFT; a quantised base is unpacked first
    identity_at_start: bool = True  # before training the model is the base model
    nf4: bool = True  # over a base in 4 bits of bitsandbytes (QLoRA)
    int8: bool = True  # over a base in 8 bits of bitsandbytes (LLM.int8())
    checkpointing: bool = True  # gradient checkpointing
    dropout: bool = False  # has a dropout of its own
    tied_embeddings: bool = False  # trains an embedding that the output head is tied to, and keeps the tie
    multi_adapter: bool = True  # several adapters on one base
    conv1d: bool = True  # adapts GPT-2's linear layers, which transformers keeps transposed as Conv1D
    prompt_learning: bool = False  # left padding changes its answers: generate in batches of one length
    rewrites_base: bool = False  # writes into base weights: disabling the adapter is not the base
    why_unquantised: str = NEEDS_WEIGHTS  # the reason, where nf4 or int8 is false

    def unquantised(self, why: str = NEEDS_WEIGHTS) -> "Traits":
        """The same for a method that works on an unquantised base alone."""
        return replace(self, nf4=False, int8=False, why_unquantised=why)


PLAIN, DROPS, NO_MERGE = Traits(), Traits(dropout=True), Traits(mergeable=False)


WHOLE = PLAIN.unquantised()  # trains copies of whole weights


FULL = replace(WHOLE, tied_embeddings=True, multi_adapter=False, rewrites_base=True)


PROMPT = Traits(mergeable=False, identity_at_start=False, prompt_learning=True)  # PEFT drops position ids


PREFIX = Traits(mergeable=False, identity_at_start=False, checkpointing=False)  # lives in the key-value cache


LYCORIS = replace(
    DROPS,
    nf4=False,
    conv1d=False,
    why_unquantised="takes its sizes from the stored weights, which 4 bits pack in bytes",
)


LINEAR = replace(WHOLE, conv1d=False)
