"""Rows as token ids: what is trained on, what is cut, and what is refused."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.config.schema import Template
from harness.data.audit import label_audit
from harness.data.collate import collate, positions_needed, with_needed_logits
from harness.data.dataset import SplitRows, read_splits
from harness.data.messages import Message
from harness.data.rows import Row
from harness.data.templates import render_question
from harness.data.tokenize import TokenizedRow, held_out_rows, prompt_ids, tokenize_splits
from harness.errors import DataFault, ModelFault
from tests.support.data_cases import (
    ALPACA,
    CHATML,
    PROMPT,
    byte_tokenizer,
    qwen_tokenizer,
    rows_of,
    settings,
    shared,
    tokenized,
    turns,
)
from tests.support.runs import loaded


def test_labels_are_the_completion_and_one_end_of_text_token() -> None:
    tokenizer = byte_tokenizer()
    (row,) = tokenized("ab", tokenizer=tokenizer)
    assert tokenizer.decode(row.input_ids) == "Instruction: q\nAnswer: ab</s>"
    assert row.prompt_length == PROMPT
    assert row.labels[:PROMPT] == (-100,) * PROMPT
    assert tokenizer.decode(row.labels[PROMPT:]) == "ab</s>"
    assert len(row.labels) == len(row.input_ids)


def test_the_prompt_has_the_same_ids_in_training_and_in_generation() -> None:
    for tokenizer in (byte_tokenizer(), byte_tokenizer(bos=True), qwen_tokenizer()):
        cases = product(("ab", " ab", "\nab", "答"), (Template.lesson, Template.lesson_exact, Template.alpaca))
        for output, template in cases:
            (row,) = tokenized(output, tokenizer=tokenizer, template=template.value)
            prompt = render_question("q", "", template, tokenizer)
            (alone,) = prompt_ids([prompt], template, tokenizer)
            assert list(row.input_ids[: row.prompt_length]) == alone
            assert alone == tokenizer(prompt)["input_ids"]


def test_there_is_one_start_token_where_the_tokenizer_has_one() -> None:
    chatml = "{{ bos_token }}" + CHATML
    tokenizer = byte_tokenizer(bos=True, eos="<|im_end|>", chat_template=chatml)
    for template in Template:
        (row,) = tokenized("ab", tokenizer=tokenizer, template=template.value)
        assert row.input_ids.count(tokenizer.bos_token_id) == 1
        assert row.input_ids[0] == tokenizer.bos_token_id
        assert row.start == 1


def test_an_end_token_that_the_tokenizer_appends_to_prompts_is_removed() -> None:
    from tokenizers import processors

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    (row,) = tokenized("ab", tokenizer=tokenizer)
    assert row.input_ids.count(tokenizer.eos_token_id) == 1


def test_chat_ends_with_the_turns_own_end_and_the_token_that_stops_generation() -> None:
    qwen = qwen_tokenizer()
    (row,) = tokenized("答案", tokenizer=qwen, template="chat")
    assert qwen.decode(row.input_ids[row.prompt_length :]) == "答案<|im_end|>"
    whole = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "答案"}]
    assert qwen.decode(row.input_ids) + "\n" == qwen.apply_chat_template(whole, tokenize=False)
    gemma = byte_tokenizer(eos="<eos>", chat_template=CHATML)
    gemma.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    (row,) = tokenized("ab", tokenizer=gemma, template="chat")
    assert gemma.decode(row.input_ids[row.prompt_length :]) == "ab<|im_end|>"  # not trained to write <eos> besides
    with pytest.raises(DataFault, match=r"contains the end-of-text token '<\|im_end\|>'"):
        tokenized("ab<|im_end|>c", tokenizer=gemma, template="chat")
    with pytest.raises(DataFault, match="contains the end-of-text token '<eos>'"):
        tokenized("ab<eos>", tokenizer=gemma, template="chat")


ANSWERS = ("The cat", "推荐使用", "42", "(a)", '{"a": 1}', "- item", '"Quoted"', "<b>", "$5", "...", "é", "  two")


@pytest.mark.parametrize("template", [Template.lesson, Template.alpaca, Template.chat])
def test_prompt_and_answer_have_the_ids_of_the_whole_text(template: Template) -> None:
    tiny = loaded(Path("data/tiny").absolute()).tokenizer
    for tokenizer in (tiny, qwen_tokenizer()):
        answers = ANSWERS[:-1] if template is Template.alpaca else ANSWERS  # "\n  two" has one token for its start
        done = tokenize_splits(rows_of(*answers), settings("x", template=template.value), tokenizer)
        assert done.spanned == 0
        for row in done.splits["train"]:
            text = tokenizer.decode(row.input_ids)
            assert row.input_ids == tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_row_whose_tokens_span_the_border_is_counted_and_keeps_its_prompt() -> None:
    qwen = qwen_tokenizer()
    done = tokenize_splits(rows_of("\n\nab", "ab"), settings("x", template="alpaca"), qwen)
    first, second = done.splits["train"]
    assert (done.spanned, first.spanned, second.spanned) == (1, True, False)
    assert first.input_ids[: first.prompt_length] == second.input_ids[: second.prompt_length]
    assert qwen.decode(first.answer_ids) == "\n\nab"
    published = tokenize_splits(rows_of("yes", "no"), settings("x", template="lesson_exact"), qwen)
    assert published.spanned == 2


def test_a_row_fits_up_to_max_tokens_and_is_refused_above() -> None:
    assert len(tokenized("abc", max_tokens=PROMPT + 4)) == 1
    with pytest.raises(DataFault) as caught:
        tokenized("ok", "abcd", max_tokens=PROMPT + 4)
    text = str(caught.value)
    assert "1 of 2 rows" in text
    assert f"rows.jsonl, row 2: it is {PROMPT + 5} tokens long (data.max_tokens={PROMPT + 4}" in text
    skipped = tokenize_splits(
        rows_of("ok", "abcd"), settings("x", max_tokens=PROMPT + 4, on_bad_row="skip"), byte_tokenizer()
    )
    assert [row.row.output for row in skipped.splits["train"]] == ["ok"]
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
        tokenized("a", max_tokens=window, truncate=truncate)
    with pytest.raises(DataFault, match=f"data.max_tokens={window}: all 1 rows of the train split are refused"):
        tokenized("a", max_tokens=window, truncate=truncate, on_bad_row="skip")


def test_an_output_that_contains_the_end_of_text_is_refused() -> None:
    with pytest.raises(DataFault, match="contains the end-of-text token '</s>'"):
        tokenized("ab</s>cd")


def test_a_row_that_the_chat_template_refuses_is_a_bad_row() -> None:
    refusing = "{% if messages[0]['content'] == 'q' %}{{ raise_exception('no q') }}{% endif %}"
    with pytest.raises(DataFault, match="row 1: the tokenizer's chat template refuses its messages: no q"):
        tokenized("a", tokenizer=byte_tokenizer(chat_template=refusing + CHATML), template="chat")


def test_an_unusable_tokenizer_is_reported_before_any_row() -> None:
    with pytest.raises(ModelFault, match="no end-of-text token"):
        tokenized("a", tokenizer=byte_tokenizer(eos=None))
    with pytest.raises(ModelFault, match="no chat template"):
        tokenized("a", template="chat")


def conversations(*rows: tuple[tuple[str, str], ...]) -> SplitRows:
    """Training rows of these turns; a role with a 0 has weight 0."""
    made = []
    for number, pairs in enumerate(rows, start=1):
        messages = tuple(Message(role.rstrip("0"), text, trained="0" not in role) for role, text in pairs)
        made.append(Row(number, "rows.jsonl", "q", "", messages[-1].content, messages, None))
    return SplitRows({"train": tuple(made), "validation": tuple(made), "test": ()}, (), 0)


LONG = (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "dd"))


def trained_text(row: TokenizedRow, tokenizer: Any) -> str:
    return tokenizer.decode([label for label in row.labels if label != -100])


def test_all_turns_are_trained_where_they_stand_each_with_its_end() -> None:
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    chosen = settings("x", template="chat", train_on="all")
    done = tokenize_splits(conversations(LONG), chosen, tokenizer)
    [row] = done.splits["train"]
    assert trained_text(row, tokenizer) == "b<|im_end|>dd<|im_end|>"
    assert (
        row.input_ids
        == tokenize_splits(conversations(LONG), settings("x", template="chat"), tokenizer).splits["train"][0].input_ids
    )
    # What is validated and scored is the last turn in both modes, so that the two can be compared.
    [held_out] = done.splits["validation"]
    assert trained_text(held_out, tokenizer) == "dd<|im_end|>"
    [last] = tokenize_splits(conversations(LONG), settings("x", template="chat"), tokenizer).splits["train"]
    assert trained_text(last, tokenizer) == "dd<|im_end|>"
    audits = [label_audit([each]) for each in (row, last)]
    assert [audit["supervised_tokens"] for audit in audits] == [5, 3]
    assert sum(audits[0][name] for name in ("supervised_tokens", "prompt_tokens")) == len(row.input_ids)
    assert audits[0]["supervised_sha256"] != audits[1]["supervised_sha256"]


def test_turns_of_weight_0_are_history_in_both_modes() -> None:
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    weighted = (("user", "a"), ("assistant0", "b"), ("user", "c"), ("assistant", "d"))
    for mode in ("all", "last"):
        chosen = settings("x", template="chat", train_on=mode)
        [row] = tokenize_splits(conversations(weighted), chosen, tokenizer).splits["train"]
        assert trained_text(row, tokenizer) == "d<|im_end|>"


def test_a_turn_that_the_template_rewrites_later_is_a_row_of_its_own() -> None:
    direct = CHATML.replace("assistant\n' }}", "assistant\n<think></think>' }}").replace(
        "+ message['content']",
        "+ ('<think></think>' if loop.last and message.role == 'assistant' else '') + message['content']",
    )
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=direct)
    for template, size in (("chat", 2), ("lesson", 2)):
        chosen = settings("x", template=template, train_on="all")
        done = tokenize_splits(conversations(LONG, LONG[1:3]), chosen, tokenizer)
        assert [trained_text(row, tokenizer).strip() for row in done.splits["train"]] == [
            "b<|im_end|>", "dd<|im_end|>", "b<|im_end|>"
        ]  # fmt: skip
        assert done.apart == size - 1


def test_a_conversation_with_one_unusable_turn_is_one_bad_row() -> None:
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    broken = (("user", "a"), ("assistant", "b<|im_end|>"), ("user", "c"), ("assistant", "d"))
    chosen = settings("x", template="chat", train_on="all", on_bad_row="skip")
    rows = conversations(LONG, broken)
    done = tokenize_splits(replace(rows, splits={**rows.splits, "validation": ()}), chosen, tokenizer)
    assert [row.row.number for row in done.splits["train"]] == [1]
    assert [row.number for row in done.bad] == [2]


def test_several_turns_give_the_same_loss_positions_in_a_batch() -> None:
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    chosen = settings("x", template="chat", train_on="all")
    [row] = tokenize_splits(conversations(LONG), chosen, tokenizer).splits["train"]
    batch = collate([row], pad_id=0, side="right")
    shifted = with_needed_logits(batch)
    assert (shifted["shift_labels"] != -100).sum() == 5
    assert positions_needed(batch) == len(row.input_ids) - row.turns[0][0] + 1


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


@limits(max_examples=100, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.integers(1, 120), st.booleans(), st.booleans())
def test_every_row_is_tokenized_or_bad_and_none_is_lost(
    pairs: list[tuple[str, str]], window: int, truncate: bool, bos: bool
) -> None:
    made = tuple(
        Row(number, "x", instruction, "", output, turns(("user", instruction), ("assistant", output)), None)
        for number, (instruction, output) in enumerate(pairs, start=1)
    )
    rows = SplitRows({"train": made, "validation": (), "test": ()}, (), 0)
    try:
        done = tokenize_splits(
            rows, settings("x", max_tokens=window, truncate=truncate, on_bad_row="skip"), byte_tokenizer(bos)
        )
    except DataFault:
        return
    rows = done.splits["train"]
    numbers = [row.row.number for row in rows] + [row.number for row in done.bad]
    assert sorted(numbers) == list(range(1, len(pairs) + 1))
    for row in rows:
        assert 1 <= row.prompt_length < len(row.input_ids) <= window
        assert row.cut == (row.input_ids[-1] != byte_tokenizer(bos).eos_token_id)


@pytest.mark.parametrize("template", list(Template))
def test_real_rows_and_the_real_tokenizer_agree_with_its_decoder(template: Template) -> None:
    tokenizer = qwen_tokenizer()
    columns = {"instruction": "question", "output": "answer"}
    chosen = settings(
        shared("gsm8k/test.jsonl"), columns, template=template.value, limits=(200, 20, 20), max_tokens=1024
    )
    rows = read_splits(chosen)
    done = tokenize_splits(rows, chosen, tokenizer)
    assert not done.bad
    for row in done.splits["train"]:
        assert tokenizer.decode(row.input_ids[: row.prompt_length]) == row.prompt
        answer = tokenizer.decode(row.input_ids[row.prompt_length :])
        blank = " " if template is Template.lesson else ""
        assert answer == blank + row.row.output + tokenizer.eos_token
    assert label_audit(done.splits["train"]) == label_audit(tokenize_splits(rows, chosen, tokenizer).splits["train"])


def test_the_embedded_rows_fit_their_window(tmp_path: Path) -> None:
    chosen = settings(
        "medicine", {**ALPACA, "target": "medicine"}, splits=("train", "validation", "test"), max_tokens=128
    )
    done = tokenize_splits(read_splits(chosen), chosen, qwen_tokenizer())
    assert (done.bad, done.cut) == ((), 0)
    assert json.dumps(label_audit(done.splits["train"]))


@pytest.mark.parametrize(
    ("line", "named"),
    [("{", "not a JSON object"), ('{"words": "a b"}', "not a JSON object"), ('{"text": "a"}', "no token to predict"),
     ('["a"]', "not a JSON object"), ('{"text": null}', "not a JSON object")],
)  # fmt: skip
def test_general_text_that_cannot_be_scored_is_named(tmp_path, random_qwen2, line, named):
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"text": "fine text\u2028with a line separator"}, ensure_ascii=False) + "\n" + line)
    with pytest.raises(DataFault, match=f"scoring.forgetting: .*text 2 .*{named}"):
        held_out_rows(file, None, loaded(random_qwen2).tokenizer, 64)
    assert len(held_out_rows(file, 1, loaded(random_qwen2).tokenizer, 64)) == 1
