"""Tokens: what is trained on, what is refused, and what a batch looks like."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.config.schema import Template
from harness.data import dataset
from harness.data.audit import label_audit
from harness.data.collate import by_length, collate, lesson_collate, with_needed_logits
from harness.data.rows import Row
from harness.data.templates import render_question
from harness.data.tokenize import TokenizedRow, prompt_ids, tokenize_splits
from harness.errors import DataFault, ModelFault
from tests.support.data_cases import ALPACA, CHATML, byte_tokenizer, qwen_tokenizer, settings, shared

PROMPT = len("Instruction: q\nAnswer: ")


def rows_of(*outputs: str, instruction: str = "q") -> dataset.SplitRows:
    made = tuple(
        Row(number, "rows.jsonl", instruction, "", output, (("user", instruction), ("assistant", output)), None)
        for number, output in enumerate(outputs, start=1)
    )
    return dataset.SplitRows({"train": made, "validation": (), "test": ()}, (), "", 0)


def examples_of(*outputs: str, tokenizer: Any = None, **changes: Any) -> list[TokenizedRow]:
    tokenizer = tokenizer or byte_tokenizer()
    return tokenize_splits(rows_of(*outputs), settings("x", **changes), tokenizer).splits["train"]


def test_labels_are_the_completion_and_one_end_of_text_token() -> None:
    tokenizer = byte_tokenizer()
    (example,) = examples_of("ab", tokenizer=tokenizer)
    assert tokenizer.decode(example.input_ids) == "Instruction: q\nAnswer: ab</s>"
    assert example.prompt_length == PROMPT
    assert example.labels[:PROMPT] == (-100,) * PROMPT
    assert tokenizer.decode(example.labels[PROMPT:]) == "ab</s>"
    assert len(example.labels) == len(example.input_ids)


def test_the_prompt_has_the_same_ids_in_training_and_in_generation() -> None:
    for tokenizer in (byte_tokenizer(), byte_tokenizer(bos=True), qwen_tokenizer()):
        for output in ("ab", " ab", "\nab", "答"):
            (example,) = examples_of(output, tokenizer=tokenizer)
            prompt = render_question("q", "", Template.lesson, tokenizer)
            (alone,) = prompt_ids([prompt], Template.lesson, tokenizer)
            assert list(example.input_ids[: example.prompt_length]) == alone
            assert alone == tokenizer(prompt)["input_ids"]


def test_there_is_one_start_token_where_the_tokenizer_has_one() -> None:
    chatml = "{{ bos_token }}" + CHATML
    tokenizer = byte_tokenizer(bos=True, eos="<|im_end|>", chat_template=chatml)
    for template in Template:
        (example,) = examples_of("ab", tokenizer=tokenizer, template=template.value)
        assert example.input_ids.count(tokenizer.bos_token_id) == 1
        assert example.input_ids[0] == tokenizer.bos_token_id
        assert example.start == 1


def test_an_end_token_that_the_tokenizer_appends_to_prompts_is_taken_off() -> None:
    from tokenizers import processors

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    (example,) = examples_of("ab", tokenizer=tokenizer)
    assert example.input_ids.count(tokenizer.eos_token_id) == 1


def test_chat_ends_with_the_turns_own_end_and_the_token_that_stops_generation() -> None:
    qwen = qwen_tokenizer()
    (example,) = examples_of("答案", tokenizer=qwen, template="chat")
    assert qwen.decode(example.input_ids[example.prompt_length :]) == "答案<|im_end|>"
    whole = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "答案"}]
    assert qwen.decode(example.input_ids) + "\n" == qwen.apply_chat_template(whole, tokenize=False)
    gemma = byte_tokenizer(eos="<eos>", chat_template=CHATML)
    gemma.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    (example,) = examples_of("ab", tokenizer=gemma, template="chat")
    assert gemma.decode(example.input_ids[example.prompt_length :]) == "ab<|im_end|><eos>"


def test_a_row_fits_up_to_max_tokens_and_is_refused_above() -> None:
    assert len(examples_of("abc", max_tokens=PROMPT + 4)) == 1
    with pytest.raises(DataFault) as caught:
        examples_of("ok", "abcd", max_tokens=PROMPT + 4)
    text = str(caught.value)
    assert "1 of 2 rows" in text
    assert f"rows.jsonl, row 2: it is {PROMPT + 5} tokens long (data.max_tokens={PROMPT + 4}" in text
    skipped = tokenize_splits(
        rows_of("ok", "abcd"), settings("x", max_tokens=PROMPT + 4, on_bad_row="skip"), byte_tokenizer()
    )
    assert [example.row.output for example in skipped.splits["train"]] == ["ok"]
    assert [row.number for row in skipped.bad] == [2]
    assert skipped.cut == 0


def test_truncation_cuts_the_end_of_the_completion_and_counts_it() -> None:
    done = tokenize_splits(
        rows_of("abcdefgh", "a"), settings("x", max_tokens=PROMPT + 3, truncate=True), byte_tokenizer()
    )
    long, short = done.splits["train"]
    assert byte_tokenizer().decode(long.input_ids[long.prompt_length :]) == "abc"
    assert (long.cut, short.cut, done.cut) == (True, False, 1)
    assert label_audit(done.splits["train"])["cut_rows"] == 1


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("window", [PROMPT, PROMPT - 1, 1])
def test_a_prompt_that_fills_the_window_is_refused_even_when_truncating(truncate: bool, window: int) -> None:
    with pytest.raises(DataFault, match="its prompt fills the whole window"):
        examples_of("a", max_tokens=window, truncate=truncate)
    with pytest.raises(DataFault, match=f"data.max_tokens={window}: all 1 rows of the train split are refused"):
        examples_of("a", max_tokens=window, truncate=truncate, on_bad_row="skip")


def test_an_output_that_spells_the_end_of_text_is_refused() -> None:
    with pytest.raises(DataFault, match="spells the end-of-text token '</s>'"):
        examples_of("ab</s>cd")


def test_a_row_that_the_chat_template_refuses_is_a_bad_row() -> None:
    refusing = "{% if messages[0]['content'] == 'q' %}{{ raise_exception('no q') }}{% endif %}"
    with pytest.raises(DataFault, match="row 1: the tokenizer's chat template refuses its messages: no q"):
        examples_of("a", tokenizer=byte_tokenizer(chat_template=refusing + CHATML), template="chat")


def test_a_tokenizer_that_cannot_serve_is_named_before_any_row() -> None:
    with pytest.raises(ModelFault, match="no end-of-text token"):
        examples_of("a", tokenizer=byte_tokenizer(eos=None))
    with pytest.raises(ModelFault, match="no chat template"):
        examples_of("a", template="chat")


def test_the_audit_counts_what_is_trained_and_hashes_it() -> None:
    examples = examples_of("ab", "c")
    found = label_audit(examples, refused_rows=3)
    eos = byte_tokenizer().eos_token_id
    lines = [" ".join(str(number) for number in [*byte_tokenizer()(text)["input_ids"], eos]) for text in ("ab", "c")]
    assert found == {
        "supervised_tokens": 5,
        "prompt_tokens": 2 * PROMPT,
        "rows": 2,
        "refused_rows": 3,
        "cut_rows": 0,
        "supervised_sha256": hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest(),
    }
    assert label_audit(examples[::-1])["supervised_sha256"] != found["supervised_sha256"]


def test_a_row_with_no_supervised_token_is_an_error() -> None:
    (example,) = examples_of("ab")
    empty = TokenizedRow(example.input_ids[:PROMPT], PROMPT, example.row, example.prompt)
    with pytest.raises(DataFault, match="row 1: no token of its completion is trained on"):
        label_audit([empty])
    with pytest.raises(DataFault, match="no row of this batch"):
        collate([empty], 0, "right")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_masked_and_never_a_label(side: str) -> None:
    examples = examples_of("abcd", "e")
    batch = collate(examples, pad_id=9, side=side)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), (2, PROMPT + 5)
    )
    short = slice(3, None) if side == "left" else slice(None, PROMPT + 2)
    gap = slice(None, 3) if side == "left" else slice(PROMPT + 2, None)
    assert batch["input_ids"][1, short].tolist() == list(examples[1].input_ids)
    assert batch["labels"][1, short].tolist() == list(examples[1].labels)
    assert batch["attention_mask"][1].sum() == PROMPT + 2
    assert batch["input_ids"][1, gap].tolist() == [9] * 3
    assert batch["attention_mask"][1, gap].tolist() == [0] * 3
    assert batch["labels"][1, gap].tolist() == [-100] * 3
    with pytest.raises(ValueError, match="side='middle'"):
        collate(examples, 9, "middle")


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
    examples = examples_of(*outputs, tokenizer=tokenizer)
    batch = lesson_collate(examples, tokenizer.pad_token_id, length)
    for index, example in enumerate(examples):
        item = lesson_dataset_item(example.prompt, example.row.output, tokenizer, length)
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


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


@limits(max_examples=100, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.integers(1, 120), st.booleans(), st.booleans())
def test_every_row_is_an_example_or_a_bad_row_never_lost(
    pairs: list[tuple[str, str]], window: int, truncate: bool, bos: bool
) -> None:
    made = tuple(
        Row(number, "x", instruction, "", output, (("user", instruction), ("assistant", output)), None)
        for number, (instruction, output) in enumerate(pairs, start=1)
    )
    rows = dataset.SplitRows({"train": made, "validation": (), "test": ()}, (), "", 0)
    try:
        done = tokenize_splits(
            rows, settings("x", max_tokens=window, truncate=truncate, on_bad_row="skip"), byte_tokenizer(bos)
        )
    except DataFault:
        return
    examples = done.splits["train"]
    numbers = [example.row.number for example in examples] + [row.number for row in done.bad]
    assert sorted(numbers) == list(range(1, len(pairs) + 1))
    for example in examples:
        assert 1 <= example.prompt_length < len(example.input_ids) <= window
        assert example.cut == (example.input_ids[-1] != byte_tokenizer(bos).eos_token_id)


@pytest.mark.parametrize("template", list(Template))
def test_real_rows_and_the_real_tokenizer_agree_with_its_decoder(template: Template) -> None:
    tokenizer = qwen_tokenizer()
    columns = {"instruction": "question", "output": "answer"}
    chosen = settings(
        shared("gsm8k/test.jsonl"), columns, template=template.value, limits=(200, 20, 20), max_tokens=1024
    )
    rows = dataset.read_splits(chosen)
    done = tokenize_splits(rows, chosen, tokenizer)
    assert not done.bad
    for example in done.splits["train"]:
        assert tokenizer.decode(example.input_ids[: example.prompt_length]) == example.prompt
        answer = tokenizer.decode(example.input_ids[example.prompt_length :])
        assert answer == example.row.output + tokenizer.eos_token
    assert label_audit(done.splits["train"]) == label_audit(tokenize_splits(rows, chosen, tokenizer).splits["train"])


def test_the_embedded_rows_fit_their_window(tmp_path: Path) -> None:
    chosen = settings(
        "medicine", {**ALPACA, "target": "medicine"}, splits=("train", "validation", "test"), max_tokens=128
    )
    done = tokenize_splits(dataset.read_splits(chosen), chosen, qwen_tokenizer())
    assert (done.bad, done.cut) == ((), 0)
    assert json.dumps(label_audit(done.splits["train"]))


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
