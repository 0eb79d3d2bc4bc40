"""The tokenizer's padding and end-of-text tokens."""

import pytest

from harness.errors import ModelFault
from harness.models.tokenizer import load_tokenizer
from tests.support.model_cases import SPECIAL, tokenizer


@pytest.mark.parametrize(
    ("special", "pad", "noted"),
    [
        ({"eos_token": "<|im_end|>"}, "<|endoftext|>", True),
        ({"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}, "<|endoftext|>", True),
        ({"eos_token": "<|im_end|>", "pad_token": "<|im_start|>"}, "<|im_start|>", False),
        ({"eos_token": "<|endoftext|>"}, "<|endoftext|>", True),  # nothing else to take
    ],
)
def test_padding_token_differs_from_the_end_where_it_can(tmp_path, special, pad, noted):
    before = tokenizer(**special)
    before.save_pretrained(tmp_path)
    loaded, note = load_tokenizer(tmp_path, False)
    assert loaded.pad_token == pad
    assert loaded.pad_token_id == SPECIAL.index(pad)
    assert len(loaded) == len(before)
    assert (note == f"padding token: {pad}") == noted


def test_tokenizer_without_end_is_refused(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelFault, match="has no end-of-text token"):
        load_tokenizer(tmp_path, False)
