"""Batches: padding, labels, the lesson's own batch, and the logits that a loss needs."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.data.collate import by_length, collate, lesson_collate, with_needed_logits
from tests.support.data_cases import PROMPT, byte_tokenizer, qwen_tokenizer, tokenized


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_masked_and_never_a_label(side: str) -> None:
    rows = tokenized("abcd", "e")
    batch = collate(rows, pad_id=9, side=side)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), (2, PROMPT + 5)
    )
    short = slice(3, None) if side == "left" else slice(None, PROMPT + 2)
    gap = slice(None, 3) if side == "left" else slice(PROMPT + 2, None)
    assert batch["input_ids"][1, short].tolist() == list(rows[1].input_ids)
    assert batch["labels"][1, short].tolist() == list(rows[1].labels)
    assert batch["attention_mask"][1].sum() == PROMPT + 2
    assert batch["input_ids"][1, gap].tolist() == [9] * 3
    assert batch["attention_mask"][1, gap].tolist() == [0] * 3
    assert batch["labels"][1, gap].tolist() == [-100] * 3
    with pytest.raises(ValueError, match="side='middle'"):
        collate(rows, 9, "middle")


def lesson_dataset_item(prompt: str, target: str, tokenizer: Any, length: int) -> dict[str, Any]:
    """What the published lesson's data set returns for a row, in its own calls."""
    options = {"max_length": length, "truncation": True, "padding": "max_length", "return_tensors": "pt"}
    inputs = dict(tokenizer(prompt, **options))
    inputs["labels"] = tokenizer(target, **options)["input_ids"]
    return {key: value.squeeze() for key, value in inputs.items() if key != "token_type_ids"}


@pytest.mark.parametrize("make", [byte_tokenizer, lambda: byte_tokenizer(bos=True), qwen_tokenizer])
@pytest.mark.parametrize("length", [512, 24, 4])
def test_the_lesson_batch_is_what_the_lesson_itself_makes(make: Any, length: int) -> None:
    tokenizer = make()
    outputs = ("推荐使用癃闭舒胶囊。", "a", "a longer answer than the others, cut at small lengths")
    rows = tokenized(*outputs, tokenizer=tokenizer)
    batch = lesson_collate(rows, tokenizer.pad_token_id, length)
    for index, row in enumerate(rows):
        item = lesson_dataset_item(row.prompt, row.row.output, tokenizer, length)
        assert {key: value.tolist() for key, value in item.items()} == {
            key: value[index].tolist() for key, value in batch.items()
        }
    assert (batch["labels"] != -100).all()


@limits(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 8), st.booleans())
def test_batches_by_length_hold_every_index_once(lengths: list[int], size: int, equal: bool) -> None:
    batches = by_length(lengths, size, equal)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order, reverse=True)
    if equal:
        assert all(len({lengths[index] for index in batch}) == 1 for batch in batches)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        by_length([1], 0)


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([[-100, -100, 5, 6], [-100, -100, -100, 7]], 3),  # from the position that predicts the 5
        ([[-100, -100, -100, 7]], 2),
        ([[4, 5, -100, -100]], 4),  # nothing predicts the 4
        ([[-100, 5]], 2),
        ([[-100, -100]], 1),  # a batch without rows
    ],
)
def test_only_positions_that_predict_a_label_or_follow_one_that_does_are_kept(labels, kept):
    batch = {"labels": torch.tensor(labels)}
    spared = with_needed_logits(batch)
    assert spared["logits_to_keep"] == kept
    shifted = [[*row[1:], -100] for row in labels]
    assert spared["shift_labels"].tolist() == [row[-kept:] for row in shifted]
    left_out = [label for row in shifted for label in row[:-kept]]
    assert set(left_out) <= {-100}
    assert spared["labels"] is batch["labels"]
