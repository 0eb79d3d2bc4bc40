"""Prompt templates: how a row becomes a prompt and a completion, the same in training and in scoring.

``lesson`` and ``alpaca`` are plain text and need no tokenizer; ``chat`` is the tokenizer's own template.
"""

from typing import Any

from harness.config.schema import Template
from harness.data.rows import Row, question
from harness.errors import DataFault, ModelFault

# Stanford Alpaca's two prompts (github.com/tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT).
# The completion follows the last colon directly, without a newline.
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


def render_row(row: Row, template: Template, tokenizer: Any) -> tuple[str, str]:
    """Prompt and completion of a row; the completion has no end-of-text token (``tokenize`` adds it).

    With ``chat``, everything before the last assistant turn is the prompt, up to and including the header that opens
    that turn, and the completion is what the template puts after it. If a turn ends with a token other than the
    tokenizer's end-of-text token (Gemma's ``<end_of_turn>``), the completion keeps it. Raises DataFault, with only
    the reason, for a row that the chat template refuses.
    """
    if template is not Template.chat:
        return _plain(row.instruction, row.input, template), row.output
    messages = [{"role": role, "content": content} for role, content in row.messages]
    prompt = _chat(messages[:-1], tokenizer, ask=True)
    whole = _chat(messages, tokenizer, ask=False)
    if not whole.startswith(prompt):
        raise DataFault("the tokenizer's chat template does not put the answer where its prompt ends")
    return prompt, _without_end(whole[len(prompt) :], tokenizer)


def render_question(instruction: str, input: str, template: Template, tokenizer: Any) -> str:
    """The prompt of one question, equal to that of a row with the same instruction and input."""
    if template is not Template.chat:
        return _plain(instruction, input, template)
    require_template(template, tokenizer)
    return _chat([{"role": "user", "content": question(instruction, input)}], tokenizer, ask=True)


def require_template(template: Template, tokenizer: Any) -> None:
    """Raise ModelFault if ``template`` is ``chat`` and the tokenizer has no chat template."""
    if template is Template.chat and not getattr(tokenizer, "chat_template", None):
        name = tokenizer.name_or_path or "this model"
        remedy = "set data.template=lesson or data.template=alpaca"
        raise ModelFault(f"data.template=chat: the tokenizer of {name} has no chat template; {remedy}")


def _plain(instruction: str, input: str, template: Template) -> str:
    if template is Template.lesson:
        # The lesson leaves the Input line out if there is none, and ends with a space.
        return f"Instruction: {instruction}\n" + (f"Input: {input}\n" if input else "") + "Answer: "
    return (_ALPACA_INPUT if input else _ALPACA).format(instruction=instruction, input=input)


def _chat(messages: list[dict[str, str]], tokenizer: Any, ask: bool) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, **_FIXED)
    except TemplateError as fault:  # How templates refuse a role or an order of turns.
        raise DataFault(f"the tokenizer's chat template refuses its messages: {str(fault)[:200]}") from fault


def _without_end(completion: str, tokenizer: Any) -> str:
    """``completion`` up to the end-of-text token that closes the turn, or up to another end-of-turn token.

    What a template writes after that token (Qwen: a newline) belongs to the next turn and is never generated.
    """
    text = completion.rstrip()
    if tokenizer.eos_token and text.endswith(tokenizer.eos_token):
        return text.removesuffix(tokenizer.eos_token)
    if any(text.endswith(token) for token in tokenizer.get_added_vocab()):
        return text
    return completion
