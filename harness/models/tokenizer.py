"""The tokenizer of a base model."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from harness.errors import ModelFault

# Tokens made for padding, or unused: Llama 3; Qwen, SmolLM2 and GPT-2; Gemma; BERT-like; Llama 2.
PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "[PAD]", "<unk>")


def load_tokenizer(folder: Path, trust_remote_code: bool) -> tuple[PreTrainedTokenizerBase, str | None]:
    """The tokenizer with a padding token, and a note on the one chosen if the model has no usable one.

    A padding token that is also the end-of-text token is replaced if the vocabulary has another candidate: code that
    masks padding by its id would mask the end too. The vocabulary never grows. Raises ModelFault if the tokenizer
    cannot be read or has no end-of-text token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelFault(
            f"{folder} has no tokenizer that transformers can read ({type(error).__name__}: {error}); "
            "save one beside the weights with tokenizer.save_pretrained"
        ) from error
    if tokenizer.eos_token is None:
        raise ModelFault(f"the tokenizer in {folder} has no end-of-text token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return tokenizer, None
    vocabulary = tokenizer.get_vocab()
    free = (token for token in PAD_CANDIDATES if token in vocabulary and token != tokenizer.eos_token)
    tokenizer.pad_token = next(free, tokenizer.eos_token)
    return tokenizer, f"padding token: {tokenizer.pad_token}"
