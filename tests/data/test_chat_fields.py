"""Every field of a message is shown by the chat template, or its row is refused."""

from typing import Any

import pytest

from harness.config.schema import Template
from harness.data.dataset import SplitRows
from harness.data.messages import Message
from harness.data.rows import Row
from harness.data.templates import render_row
from harness.data.tokenize import tokenize_splits
from harness.errors import DataFault
from tests.support.data_cases import CHATML, byte_tokenizer, settings

CALL = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "weather"}}

# Shows tools, calls (name and arguments) and reasoning, as Qwen's templates do.
FULL = (
    "{% if tools %}{{ 'TOOLS ' + tools | tojson }}{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}"
    "{{ message['content'] }}{% for call in message.tool_calls or [] %}"
    "{{ '<call>' + call.function.name + ' ' + (call.function.arguments | tojson) + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template: str) -> Any:
    return byte_tokenizer(eos="<|im_end|>", chat_template=template)


def row(*messages: Message, tools: tuple[Any, ...] = ()) -> Row:
    return Row(1, "x.jsonl", "q", "", messages[-1].content, messages, None, tools=tools)


ASK = Message("user", "q")
CALLS = Message("assistant", "Calling.", {"tool_calls": [CALL]})
SAYS = Message("assistant", "a")
NO_ARGUMENTS = FULL.replace(" + ' ' + (call.function.arguments | tojson)", "")
CONTENT = "{{ message['content'] }}"
CALL_OR_CONTENT = FULL.replace(CONTENT, "{% if not message.tool_calls %}" + CONTENT + "{% endif %}")
NO_SYSTEM = CHATML.replace("in messages %}", "in messages if message.role != 'system' %}")


def test_shown_fields_are_part_of_prompt_and_answer() -> None:
    prompt, answer = render_row(row(ASK, CALLS, tools=(TOOL,)), Template.chat, tokenizer(FULL))
    assert prompt.startswith("TOOLS [{")
    assert answer == 'Calling.<call>weather {"city": "Oslo"}</call>'
    after = row(ASK, CALLS, Message("tool", "rain", {"tool_call_id": "c1"}), Message("assistant", "Rain."))
    prompt, answer = render_row(after, Template.chat, tokenizer(FULL))
    assert "<call>weather" in prompt
    assert answer == "Rain."
    thinking = row(ASK, Message("assistant", "4", {"reasoning_content": "two and two"}))
    assert render_row(thinking, Template.chat, tokenizer(FULL))[1] == "<think>two and two</think>4"


def test_the_reference_of_a_call_is_what_the_template_makes_of_it() -> None:
    rows = SplitRows({"train": (row(ASK, CALLS),), "validation": (), "test": ()}, (), 0)
    [tokenized] = tokenize_splits(rows, settings("x", template="chat"), tokenizer(FULL)).splits["train"]
    assert tokenized.row.output == 'Calling.<call>weather {"city": "Oslo"}</call>'


@pytest.mark.parametrize(
    ("template", "messages", "tools", "hidden"),
    [
        (CHATML, (ASK, CALLS), (), "tool_calls of message 2"),
        (CHATML, (ASK, SAYS), (TOOL,), "its tools"),
        (CHATML, (ASK, Message("assistant", "a", {"reasoning_content": "r"})), (), "reasoning_content of message 2"),
        (CHATML, (Message("user", "q", {"name": "Ann"}), SAYS), (), "name of message 1"),
        (NO_ARGUMENTS, (ASK, CALLS), (), "the arguments of a tool call of message 2"),
        (CALL_OR_CONTENT, (ASK, CALLS), (), "the content of message 2 by the assistant"),
        (NO_SYSTEM, (Message("system", "be kind"), ASK, SAYS), (), "the content of message 1 by the system"),
    ],
)
def test_a_field_that_the_template_skips_is_refused_by_name(template, messages, tools, hidden) -> None:
    with pytest.raises(DataFault, match=f"chat template does not show {hidden}"):
        render_row(row(*messages, tools=tools), Template.chat, tokenizer(template))


def test_templates_that_join_arguments_get_them_as_text() -> None:
    joining = FULL.replace("(call.function.arguments | tojson)", "call.function.arguments")
    assert render_row(row(ASK, CALLS), Template.chat, tokenizer(joining))[1].endswith('weather {"city": "Oslo"}</call>')


def test_a_template_that_refuses_both_forms_says_why() -> None:
    refusing = "{{ raise_exception('no calls') }}" + FULL
    with pytest.raises(DataFault, match="no calls"):
        render_row(row(ASK, CALLS), Template.chat, tokenizer(refusing))


def test_reasoning_that_comes_where_the_prompt_has_ended_it_names_the_remedy() -> None:
    direct = FULL.replace("assistant\n' }}{% endif %}", "assistant\n<think></think>' }}{% endif %}")
    thinking = row(ASK, Message("assistant", "4", {"reasoning_content": "two"}))
    with pytest.raises(DataFault, match="remove reasoning_content from the last message"):
        render_row(thinking, Template.chat, tokenizer(direct))


@pytest.mark.parametrize("template", [each for each in Template if each is not Template.chat])
def test_plain_templates_refuse_what_they_cannot_show(template: Template) -> None:
    with pytest.raises(DataFault, match=f"message 2 has the field tool_calls, which data.template={template.value}"):
        render_row(row(ASK, CALLS), template, byte_tokenizer())
    with pytest.raises(DataFault, match=r"it has tools, .*use data\.template=chat"):
        render_row(row(ASK, Message("assistant", "a"), tools=(TOOL,)), template, byte_tokenizer())
