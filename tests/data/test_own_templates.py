"""Prompt templates of the user's own: what is read of them, what is refused, and where their border falls."""

import pytest

from harness.data import templates
from harness.data.checks import template_faults
from harness.data.messages import Message
from harness.data.rows import Row
from harness.errors import DataFault
from tests.support.model_cases import tokenizer
from tests.support.own_code import importable, write

TEXT = "Question: {{ instruction }}\n{% if input %}Context: {{ input }}\n{% endif %}Answer: {{ output }}"


def row(instruction="Which?", input="", output="blue", **more):
    messages = (Message("user", instruction), Message("assistant", output))
    return Row(1, "rows", instruction, input, output, messages, None, **more)


def faults(template, kept=()):
    return list(template_faults("data.template", template, list(kept)))


@pytest.mark.parametrize("input", ["", "sky"])
def test_a_text_is_rendered_up_to_its_answer(input):
    prompt, completion = templates.render_row(row(input=input), TEXT, None)
    assert prompt + completion == "Question: Which?\n" + ("Context: sky\n" if input else "") + "Answer: blue"
    assert completion == " blue"  # most tokenizers write a blank and a word as one token
    assert templates.render_question("Which?", input, TEXT, None) == prompt


def test_a_newline_before_the_answer_ends_the_prompt():
    prompt, completion = templates.render_row(row(), "{{ instruction }}\n{{ output }}", None)
    assert (prompt, completion) == ("Which?\n", "blue")


class Pieces:
    """A tokenizer that writes what stands in ``joined`` as one token, and everything else by character."""

    def __init__(self, *joined):
        self.joined = joined

    def __call__(self, texts, **options):
        return {"input_ids": [list(self._pieces(text)) for text in texts]}

    def _pieces(self, text):
        while text:
            piece = next((each for each in self.joined if text.startswith(each)), text[0])
            yield piece
            text = text[len(piece) :]


STARTS = 'Ty推日4([{"-$<éb'  # of the answers by which the border is chosen, and of the row's own


@pytest.mark.parametrize(
    ("joined", "border"),
    [
        ((), "Which?:\n|blue"),
        ((":\n",), "Which?:\n|blue"),
        (tuple(f"\n{letter}" for letter in STARTS), "Which?:|\nblue"),
    ],
)
def test_the_border_is_where_the_tokenizers_merges_expect_it(joined, border):
    made = templates.render_row(row(), "{{ instruction }}:\n{{ output }}", Pieces(*joined))
    assert "|".join(made) == border


def test_a_template_shows_kept_columns_and_messages():
    text = (
        "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}[{{ columns.topic }}] {{ output }}"
    )
    assert faults(text, ["topic"]) == []
    prompt, _ = templates.render_row(row(kept={"topic": "sky"}), text, None)
    assert prompt == "user: Which?\n[sky]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ instruction }", "is not valid Jinja"),
        ("{{ instruction }} {{ question }} {{ output }}", "uses question, which is not known; use instruction, input"),
        ("{{ instruction }}", "must end in {{ output }}"),
        ("{{ output }} {{ instruction }}", "has ' Which color?' after the answer"),
        ("{{ instruction }} {{ output | upper }}", "does not show the answer unchanged"),
        ("{{ instruction }} {{ columns.topic }} {{ output }}", "name the columns that it shows in data.columns.keep"),
        ("{{ output }}", "makes an empty prompt"),
        ("{{ instruction.__class__.__mro__ }} {{ output }}", "SecurityError"),
        ("{{ messages.append(1) }} {{ output }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__ }} {{ output }}", "SecurityError"),
        ("alpacca", "did you mean data.template=alpaca? choose one of lesson, lesson_exact, alpaca"),
        ("own_t:missing", "own_t has no missing"),
        ("own_t:three", "own_t:three is a int, not a function"),
        ("own_t:strange", "takes question, which is not known here"),
        ("own_t:broken", "own_t:broken fails on it (ZeroDivisionError"),
        ("own_t:none", "own_t:none returns NoneType None, not the text of the prompt"),
        ("own_t:bad", "data.template=own_t:bad: the template"),
    ],
)
def test_a_template_that_cannot_work_is_refused(tmp_path, text, message):
    code = (
        "three = 3\nbad = '{{ x }} {{ output }}'\ndef strange(question): ...\ndef broken(input): 1 / 0\n"
        "def none(instruction): ..."
    )
    with importable(write(tmp_path, own_t=code)):
        [fault] = faults(text)
    assert message in fault
    assert fault.startswith("data.template")


@pytest.mark.parametrize("text", [TEXT, "{{ instruction }} {{ output }}\n", "chat"])
def test_a_template_that_works_has_no_fault(text):
    assert faults(text) == []


def test_functions_and_texts_come_by_import_path(tmp_path):
    code = (
        "TEXT = 'Q {{ instruction }} {{ output }}'\ndef loud(instruction, input=''): return instruction.upper() + '\\n'"
    )
    with importable(write(tmp_path, own_u=code)):
        assert faults("own_u:TEXT") == faults("own_u:loud") == []
        assert templates.render_row(row(), "own_u:TEXT", None) == ("Q Which?", " blue")
        assert templates.render_row(row(), "own_u:loud", None) == ("WHICH?\n", "blue")


def test_a_row_on_which_a_template_fails_is_a_bad_row():
    with pytest.raises(DataFault, match="the template fails on it"):
        templates.render_row(row(input="0"), "{{ 1 // (input | int) }} {{ output }}", None)


def test_a_question_without_the_columns_that_a_template_shows_says_so():
    text = "{{ columns.topic }} {{ instruction }} {{ output }}"
    with pytest.raises(DataFault, match=r"a question has no columns of data\.columns\.keep"):
        templates.render_question("Which?", "", text, None)
    tested = "{% if columns.topic %}{{ columns.topic }} {% endif %}{{ instruction }} {{ output }}"
    assert templates.render_question("Which?", "", tested, None) == "Which?"


def test_message_fields_that_a_template_does_not_show_are_refused():
    call = Message("assistant", "blue", {"tool_calls": []})
    asked = row()
    with pytest.raises(DataFault, match="cannot show"):
        templates.render_row(Row(1, "rows", "Which?", "", "blue", (asked.messages[0], call), None), TEXT, None)


def test_prompts_of_rows_begin_their_whole_text_with_a_real_tokenizer():
    words = tokenizer(eos_token="<|endoftext|>")
    prompt, completion = templates.render_row(row(), TEXT, words)
    ids = words([prompt, prompt + completion], add_special_tokens=False)["input_ids"]
    assert ids[1][: len(ids[0])] == ids[0]
