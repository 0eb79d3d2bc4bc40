"""Prompt templates: published texts, word for word, and the tokenizer's own."""

import pytest

from harness.config.schema import Template
from harness.data import templates
from harness.data.rows import Row, flat_history, question
from harness.errors import DataFault, ModelFault
from tests.support.data_cases import CHATML, byte_tokenizer, qwen_tokenizer, turns


def row(instruction: str = "翻译", input: str = "你好", output: str = "hello", history: tuple = ()) -> Row:
    messages = turns(*history, ("user", question(instruction, input)), ("assistant", output))
    return Row(1, "here", instruction, input, output, messages, None)


def test_the_exact_lesson_prompt_is_the_published_one_and_drops_an_empty_input() -> None:
    exact = Template.lesson_exact
    assert templates.render_row(row(), exact, None) == ("Instruction: 翻译\nInput: 你好\nAnswer: ", "hello")
    assert templates.render_row(row(input=""), exact, None)[0] == "Instruction: 翻译\nAnswer: "


def test_the_blank_of_the_lesson_belongs_to_the_answer_and_the_newline_of_alpaca_to_the_prompt() -> None:
    assert templates.render_row(row(input=""), Template.lesson, None) == ("Instruction: 翻译\nAnswer:", " hello")
    prompt, completion = templates.render_row(row(), Template.alpaca, None)
    assert prompt == templates.render_row(row(), Template.alpaca_exact, None)[0] + "\n"
    assert completion == "hello"


@pytest.mark.parametrize(("merge", "side"), [(("Ġ", "y"), "answer"), ((":", "Ġ"), "prompt")])
def test_the_border_goes_where_the_tokenizer_does_not_merge(merge: tuple[str, str], side: str) -> None:
    tokenizer = byte_tokenizer(merges=[merge])
    prompt, completion = templates.render_row(row(input="", output="yes"), Template.lesson, tokenizer)
    assert (prompt[-1], completion) == ((":", " yes") if side == "answer" else (" ", "yes"))
    assert templates.render_question("翻译", "", Template.lesson, tokenizer) == prompt


def test_the_exact_alpaca_prompts_are_the_published_ones() -> None:
    with_input, completion = templates.render_row(row(), Template.alpaca_exact, None)
    assert completion == "hello"
    assert with_input == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write"
        " a response that appropriately completes the request.\n\n### Instruction:\n翻译\n\n### Input:\n你好\n\n"
        "### Response:"
    )
    assert templates.render_row(row(input=""), Template.alpaca_exact, None)[0] == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n翻译\n\n### Response:"
    )


def test_braces_in_the_data_are_text() -> None:
    assert "{input} {0}" in templates.render_row(row(instruction="{input} {0}"), Template.alpaca, None)[0]


@pytest.mark.parametrize("template", list(Template))
@pytest.mark.parametrize("input", ["你好", ""])
def test_a_question_gets_the_prompt_that_training_used(template: Template, input: str) -> None:
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    assert (
        templates.render_question("翻译", input, template, tokenizer)
        == templates.render_row(row(input=input), template, tokenizer)[0]
    )


def test_chat_splits_the_template_at_the_last_answer() -> None:
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    history = (("system", "s"), ("user", "a"), ("assistant", "b"))
    prompt, completion = templates.render_row(row("c", "", "d \n", history), Template.chat, tokenizer)
    assert prompt == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )
    assert completion == "d \n"  # the answer's own white space stays; the template's goes with the end token


def test_chat_of_the_real_qwen_tokenizer_adds_its_system_turn() -> None:
    prompt, completion = templates.render_row(row(), Template.chat, qwen_tokenizer())
    assert prompt.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n翻译\n你好")
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert completion == "hello"


def test_the_end_of_turn_that_the_template_writes_is_the_end_that_is_trained() -> None:
    gemma = CHATML.replace("<|im_start|>", "<start_of_turn>").replace("<|im_end|>", "<end_of_turn>")
    tokenizer = byte_tokenizer(eos="<eos>", chat_template=gemma)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    assert templates.render_row(row(), Template.chat, tokenizer)[1] == "hello"
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert templates.end_token(Template.chat, tokenizer) == ("<end_of_turn>", end)
    assert templates.end_token(Template.lesson, tokenizer) == ("<eos>", tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("written", "completion", "end"),
    [
        (" </s>", "hello ", "</s>"),  # Llama 2: a blank before its end
        ("<end_of_turn>\n<eos>\n", "hello", "<end_of_turn>"),  # the first of two
        ("\n\n", "hello\n\n", "<eos>"),  # no token: the end of text closes the turn
        (" [end]\n", "hello [end]\n", "<eos>"),  # plain text
    ],
)
def test_what_the_template_writes_after_an_answer_decides_its_end(written: str, completion: str, end: str) -> None:
    template = CHATML.replace("<|im_end|>\n", written)
    tokenizer = byte_tokenizer(eos="<eos>", chat_template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>", "</s>"]})
    assert templates.render_row(row(), Template.chat, tokenizer)[1] == completion
    assert templates.end_token(Template.chat, tokenizer)[0] == end


def test_chat_prompts_do_not_change_overnight() -> None:
    dated = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=dated + "{{ date_string }}" + CHATML)
    assert templates.render_question("q", "", Template.chat, tokenizer).startswith("26 Jul 2024<|im_start|>")


def test_a_template_that_refuses_a_row_or_cannot_be_split_is_a_fault() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer = byte_tokenizer(eos="<|im_end|>", chat_template=refusing + CHATML)
    with pytest.raises(DataFault, match="refuses its messages: System role not supported"):
        templates.render_row(row(history=(("system", "s"),)), Template.chat, tokenizer)
    thinking = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    with pytest.raises(DataFault, match="does not put the answer where its prompt ends"):
        templates.render_row(row(), Template.chat, byte_tokenizer(eos="<|im_end|>", chat_template=thinking))


def test_a_tokenizer_without_chat_template_names_the_remedy() -> None:
    with pytest.raises(ModelFault, match=r"data\.template=chat: .* set data\.template=lesson"):
        templates.render_question("q", "", Template.chat, byte_tokenizer())


@pytest.mark.parametrize("template", [Template.lesson, Template.lesson_exact, Template.alpaca, Template.chat])
@pytest.mark.parametrize("instruction", ["", "翻译"])
def test_one_turn_of_a_conversation_is_the_question_of_a_row(template: Template, instruction: str) -> None:
    tokenizer = qwen_tokenizer()
    asked = templates.render_conversation(instruction, ["你好"], template, tokenizer, as_system=False)
    words = (instruction, "你好") if instruction else ("你好", "")
    assert asked == templates.render_question(*words, template, tokenizer)


@pytest.mark.parametrize("template", [Template.lesson, Template.alpaca, Template.chat])
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_longer_conversation_is_the_prompt_of_a_row_of_messages(template: Template, system: str) -> None:
    tokenizer = qwen_tokenizer()
    spoken = ("user", "Hi"), ("assistant", "Hello!"), ("user", "And?"), ("assistant", "Well.")
    messages = turns(*([("system", system)] if system else []), *spoken)
    instruction, input = flat_history(messages[:-1])
    trained = Row(1, "here", instruction, input, "Well.", messages, None)
    prompt = templates.render_row(trained, template, tokenizer)[0]
    said = [text for _, text in spoken[:-1]]
    assert templates.render_conversation(system, said, template, tokenizer, as_system=True) == prompt


def test_an_instruction_of_rows_without_turns_begins_the_first_turn_under_chat() -> None:
    tokenizer = qwen_tokenizer()
    asked = templates.render_conversation("翻译", ["你好", "hello", "再见"], Template.chat, tokenizer, as_system=False)
    first = templates.render_question("翻译", "你好", Template.chat, tokenizer)
    assert asked.startswith(first.rpartition("<|im_start|>")[0])
    assert "hello<|im_end|>" in asked
    assert "system\n翻译" not in asked


def test_a_template_of_ones_own_gets_the_conversation_as_messages_and_as_a_transcript() -> None:
    own = "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}>{{ output }}"
    asked = templates.render_conversation("Be brief.", ["a", "b", "c"], own, byte_tokenizer(), as_system=True)
    assert asked == "[system] Be brief.\n[user] a\n[assistant] b\n[user] c\n>"
    flat = templates.render_conversation(
        "", ["a", "b", "c"], "{{ instruction }} =>{{ output }}", byte_tokenizer(), as_system=True
    )
    assert flat == "User: a\nAssistant: b\nUser: c =>"
