"""Prompt templates: how a row becomes a prompt and a completion, the same in training and in scoring.

``lesson`` and ``alpaca`` are plain text; ``chat`` is the tokenizer's own template. Between the prompt and the answer of
a plain template stands one separator, a blank or a newline. On which side of the border it belongs depends on the
tokenizer: most write a blank and the word after it as one token, and Qwen writes a colon and a newline as one. A border
inside such a token costs the answer's first token about ten nats, because the model has never seen the two apart.
``lesson_exact`` and ``alpaca_exact`` keep the published texts, wherever their border falls. Templates of the user's own
(``own_templates``) follow the same rule, by the white space before their answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.config.schema import Template
from harness.data import chat_fields, own_templates
from harness.data.messages import Message
from harness.data.rows import Row, flat_history, question
from harness.data.values import Unusable, shown
from harness.errors import DataFault, ModelFault

# Stanford Alpaca's two prompts (github.com/tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT).
# There the completion follows the last colon directly; ``alpaca`` adds a newline, as most later users do.
_ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


# A template with a date (Llama 3.1) prints today's unless given one, and a prompt must not change overnight.
# A template with a thinking mode (Qwen3) is asked to answer directly, both before and after tuning.
_FIXED = {"date_string": "26 Jul 2024", "enable_thinking": False}


# What stands between prompt and answer.
_SEPARATORS = {Template.lesson: " ", Template.alpaca: "\n"}
_PROBE = "Below is a question.\n\nAnswer:"  # both plain prompts end in a colon
# How answers begin: a word, Chinese, a number, brackets, quotes, a list, a sign, an accent.
_PROBE_ANSWERS = ("The cat", "yes", "推荐使用", "日本", "42", "(a)", '{"a": 1}', "[1]", '"a"', "- a", "$5", "<b>", "é")


def render_row(row: Row, template: str, tokenizer: Any) -> tuple[str, str]:
    """Prompt and completion of a row; joined they are the whole text but for its end token (``tokenize`` adds it).

    With ``chat``, everything before the last assistant turn is the prompt, up to and including the header that opens
    that turn, and the completion is what the template puts between it and the token that ends the turn. Raises
    DataFault, with only the reason, for a row that the chat template refuses.

    Args:
        tokenizer: for a plain template, None gives the border of most tokenizers.
    """
    if own_templates.is_own(template):
        _refuse_fields(row, template)
        prompt, separator = _own(template, row.instruction, row.input, _turns(row), row.tools, row.kept)
        before, after = _own_border(template, separator, tokenizer)
        return prompt + before, after + row.output
    if template is not Template.chat:
        _refuse_fields(row, template)
        before, after = _separator(template, tokenizer)
        return _plain(row.instruction, row.input, template) + before, after + row.output

    def render(messages: Sequence[dict[str, Any]], tools: Sequence[Any], ask: bool = False) -> str:
        return _chat(messages, tokenizer, ask, tools)

    messages = chat_fields.as_template_takes_them(row, render)
    chat_fields.refuse_hidden(row, messages, render)
    prompt, whole = render(messages[:-1], row.tools, ask=True), render(messages, row.tools)
    if not whole.startswith(prompt):
        own = ", ".join(row.messages[-1].fields)
        remedy = f" (prompts ask for a direct answer; remove {own} from the last message)" if own else ""
        raise DataFault(f"the tokenizer's chat template does not put the answer where its prompt ends{remedy}")
    return prompt, _without_end(whole[len(prompt) :], turn_end(tokenizer))


def _own(
    template: str, instruction: str, input: str, messages: list[dict[str, Any]], tools: Sequence[Any], columns: Any
) -> tuple[str, str]:
    """Prompt and separator of a template of the user's own.

    Raises:
        DataFault: with only the reason, if it fails on this row.
    """
    given = {"instruction": instruction, "input": input, "messages": messages, "tools": list(tools)}
    try:
        return own_templates.prompt_and_separator(template, given | {"columns": dict(columns)})
    except Unusable as fault:
        raise DataFault(str(fault)) from fault


def _own_question(template: str, instruction: str, input: str, messages: list[dict[str, Any]], tokenizer: Any) -> str:
    """The prompt by a template of the user's own, for what is asked outside of any data."""
    try:
        prompt, separator = _own(template, instruction, input, messages, (), {})
    except DataFault as fault:
        raise DataFault(
            f"data.template: {fault}; a question has no columns of data.columns.keep, so test for them in the "
            "template: {% if columns.name %}"
        ) from fault
    return prompt + _own_border(template, separator, tokenizer)[0]


def _turns(row: Row) -> list[dict[str, Any]]:
    """The messages before the answer, as chat templates take them."""
    return [{"role": turn.role, "content": turn.content, **turn.fields} for turn in row.messages[:-1]]


def _own_border(template: str, separator: str, tokenizer: Any) -> tuple[str, str]:
    """The row's separator on its sides of the border: the end of the prompt, the start of the answer."""
    at = _border(own_templates.example(template) or _PROBE, separator, tokenizer)
    return separator[:at], separator[at:]


def _refuse_fields(row: Row, template: str) -> None:
    """A plain template shows roles and contents only; one of the user's own shows what it uses."""
    own = own_templates.is_own(template)
    for number, message in enumerate(row.messages, start=1):
        if message.fields and not (own and number < len(row.messages) and own_templates.uses(template, "messages")):
            raise DataFault(
                f"message {number} has the field {shown(next(iter(message.fields)))}, which data.template="
                f"{template} cannot show; use data.template=chat, or remove the field"
            )
    if row.tools and not (own and own_templates.uses(template, "tools")):
        raise DataFault(f"it has tools, which data.template={template} cannot show; use data.template=chat")


def render_question(instruction: str, input: str, template: str, tokenizer: Any) -> str:
    """The prompt of one question, equal to that of a row with the same instruction and input."""
    if own_templates.is_own(template):
        messages = [{"role": "user", "content": question(instruction, input)}]
        return _own_question(template, instruction, input, messages, tokenizer)
    if template is not Template.chat:
        return _plain(instruction, input, template) + _separator(template, tokenizer)[0]
    require_template(template, tokenizer)
    return _chat([{"role": "user", "content": question(instruction, input)}], tokenizer, ask=True)


def render_conversation(
    instruction: str, turns: Sequence[str], template: str, tokenizer: Any, *, as_system: bool
) -> str:
    """The prompt for the next answer of a conversation, in the form that rows of messages have under this template.

    A single turn is the question with that instruction and input; a plain template gets a longer conversation as a
    transcript with the roles' names (``rows.flat_history``).

    Args:
        instruction: what stands before the conversation; "" for nothing.
        turns: by the user and the assistant in alternation; the first and the last are the user's.
        as_system: under ``chat``, the instruction is a system message, not the start of the first turn.
    """
    if len(turns) == 1 and not (as_system and instruction):
        first = (instruction, turns[0]) if instruction else (turns[0], "")
        return render_question(*first, template, tokenizer)
    spoken = [Message(("user", "assistant")[at % 2], text) for at, text in enumerate(turns)]
    system = [Message("system", instruction)] if instruction else []
    asked = [*system, *spoken]
    if not as_system and instruction:
        asked = [Message("user", question(instruction, turns[0])), *spoken[1:]]
    messages = [{"role": turn.role, "content": turn.content} for turn in asked]
    if template is Template.chat:
        require_template(template, tokenizer)
        return _chat(messages, tokenizer, ask=True)
    flat = flat_history([*system, *spoken])
    if own_templates.is_own(template):
        return _own_question(template, *flat, messages, tokenizer)
    return _plain(*flat, template) + _separator(template, tokenizer)[0]


def require_template(template: str, tokenizer: Any) -> None:
    """Raise ModelFault if ``template`` is ``chat`` and the tokenizer has no chat template."""
    if template is Template.chat and not getattr(tokenizer, "chat_template", None):
        name = tokenizer.name_or_path or "this model"
        remedy = "set data.template=lesson or data.template=alpaca"
        raise ModelFault(f"data.template=chat: the tokenizer of {name} has no chat template; {remedy}")


@dataclass(frozen=True)
class TurnEnd:
    """What a chat template writes after an assistant's answer, and the token in it that ends the turn."""

    text: str  # up to the next turn, without white space at its end
    token: str
    token_id: int


@lru_cache(maxsize=8)
def turn_end(tokenizer: Any) -> TurnEnd | None:
    """How the tokenizer's chat template ends an assistant's turn; None without one, or if no single token ends it.

    That token is the first one of the vocabulary's added tokens after an answer.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    mark = "Q7Q"
    try:
        asked = _chat([{"role": "user", "content": "a"}], tokenizer, ask=True)
        whole = _chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}], tokenizer, ask=False)
    except DataFault:
        return None
    answer = whole[len(asked) :] if whole.startswith(asked) else whole
    if mark not in answer:
        return None
    rest = answer.rpartition(mark)[2].rstrip()
    begun = rest.lstrip()
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda item: -len(item[0]))
    if tokenizer.eos_token is not None:
        added.append((tokenizer.eos_token, tokenizer.eos_token_id))
    found = next(((token, number) for token, number in added if token and begun.startswith(token)), None)
    return TurnEnd(rest, *found) if found else None


def end_token(template: str, tokenizer: Any) -> tuple[str, int]:
    """The end that is trained, as text and id: the chat template's end of turn, else the tokenizer's end of text."""
    end = turn_end(tokenizer) if template is Template.chat else None
    return (end.token, end.token_id) if end else (tokenizer.eos_token, int(tokenizer.eos_token_id))


def _separator(template: str, tokenizer: Any) -> tuple[str, str]:
    """What stands between prompt and answer, on its side of the border: the end of the one, the start of the other."""
    if template not in _SEPARATORS:
        return "", ""
    separator = _SEPARATORS[Template(template)]
    at = _border(_PROBE, separator, tokenizer)
    return separator[:at], separator[at:]


@lru_cache(maxsize=64)
def _border(probe: str, separator: str, tokenizer: Any) -> int:
    """How many characters of the separator end the prompt: where the fewest tokens would span the border.

    A prompt's tokens must be those that the whole text begins with, whatever the answer is. Where the tokenizer has no
    preference (or is None), a blank begins the answer and a newline ends the prompt.

    Args:
        probe: a prompt without its separator.
    """
    usual = len(separator) - separator.endswith(" ")
    if tokenizer is None or not separator:
        return usual
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    wholes = tokenizer([f"{probe}{separator}{answer}" for answer in _PROBE_ANSWERS], **options)["input_ids"]
    spanned = {}
    for at in range(len(separator) + 1):
        [prompt] = tokenizer([probe + separator[:at]], **options)["input_ids"]
        spanned[at] = sum(whole[: len(prompt)] != prompt for whole in wholes)
    return min(spanned, key=lambda at: (spanned[at], at != usual, -at))


def _plain(instruction: str, input: str, template: str) -> str:
    if template is Template.lesson or template is Template.lesson_exact:
        # The lesson leaves the Input line out if there is none, and ends with a space.
        text = f"Instruction: {instruction}\n" + (f"Input: {input}\n" if input else "") + "Answer:"
        return text + " " if template is Template.lesson_exact else text
    return (_ALPACA_INPUT if input else _ALPACA).format(instruction=instruction, input=input)


def _chat(messages: Sequence[dict[str, Any]], tokenizer: Any, ask: bool, tools: Sequence[Any] = ()) -> str:
    from jinja2 import TemplateError

    given = {"tools": list(tools) or None, "add_generation_prompt": ask, **_FIXED}
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, **given)
    # How templates refuse a role or an order of turns; the others, how they meet a field of another form.
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as fault:
        raise DataFault(f"the tokenizer's chat template refuses its messages: {str(fault)[:200]}") from fault


def _without_end(completion: str, end: TurnEnd | None) -> str:
    """``completion`` up to the token that ends the turn.

    What a template writes after that token (Qwen: a newline) belongs to the next turn and is never generated.
    """
    text = completion.rstrip()
    if end is None or not text.endswith(end.text):
        return completion
    return text[: len(text) - len(end.text) + end.text.index(end.token)]
