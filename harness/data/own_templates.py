"""Prompt templates of the user's own: text for Jinja, or a function by import path.

    data.template: |-
      Question: {{ instruction }}
      Answer: {{ output }}

The text is a whole row and ends in ``{{ output }}``. What stands before it is the prompt; white space right before it
is the separator, which ``templates`` puts on the side of the border that the tokenizer expects. Jinja runs in its
immutable sandbox: a template can neither call into Python nor change a row.

A function gets what it names of ``GIVEN`` and returns the prompt, with the separator at its end.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from harness.data.values import Unusable
from harness.errors import brief, first_line
from harness.extensions import imports

GIVEN = ("instruction", "input", "messages", "tools", "columns")  # what a template may use
OUTPUT = "output"
_MARK = "\ufdd0answer\ufdd1"  # noncharacters: no row can hold them by accident
_EXAMPLE: dict[str, Any] = {
    "instruction": "Which color?",
    "input": "the sky",
    "messages": [{"role": "user", "content": "Which color?\nthe sky"}],
    "tools": [],
}


def is_own(template: str) -> bool:
    """Whether a setting holds a template of the user's own."""
    return is_text(template) or imports.is_import_path(template)


def is_text(template: str) -> bool:
    """Whether a setting holds text for Jinja."""
    return type(template) is str and ("{{" in template or "{%" in template)


def template_faults(key: str, template: str, kept: list[str]) -> Iterator[str]:
    """Why a template cannot be used, found on a made-up row.

    Args:
        key: the setting that holds it.
        kept: the columns that ``columns`` has.
    """
    if imports.is_import_path(template):
        found = imports.load_fault(key, template)
        if found is not None:
            yield found
            return
        value = imports.load(key, template)
        if not isinstance(value, str):
            faults = list(imports.call_faults(key, template, value, GIVEN, ()))
            yield from faults
            if not faults:
                yield from _example_faults(key, template, kept)
            return
        key, template = f"{key}={template}", value
    yield from _text_faults(key, template, kept)


def _text_faults(key: str, text: str, kept: list[str]) -> Iterator[str]:
    from jinja2 import TemplateError, meta

    start = f"{key}: the template {brief(text)!r}"
    try:
        used = meta.find_undeclared_variables(_environment().parse(text))
    except TemplateError as error:
        yield f"{start} is not valid Jinja ({first_line(error)}); correct it"
        return
    unknown = sorted(used - {*GIVEN, OUTPUT})
    if unknown:
        yield (
            f"{start} uses {', '.join(unknown)}, which is not known; use {', '.join(GIVEN)} and {OUTPUT}, and "
            "columns.<name> for a column of data.columns.keep"
        )
        return
    if OUTPUT not in used or not text.rstrip().endswith("}}"):
        yield f"{start} must end in {{{{ {OUTPUT} }}}}, where the answer goes; the end-of-text token is added for you"
        return
    yield from _example_faults(key, text, kept)


def _example_faults(key: str, template: str, kept: list[str]) -> Iterator[str]:
    for given in (_EXAMPLE, _EXAMPLE | {"input": "", "messages": [{"role": "user", "content": "Which color?"}]}):
        try:
            prompt_and_separator(template, given | {"columns": dict.fromkeys(kept, "text")})
        except Unusable as fault:
            yield (
                f"{key}: {fault} (tried on a made-up row); correct the template, and name the columns that it shows in "
                "data.columns.keep"
            )
            return


def prompt_and_separator(template: str, given: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt of one row without the white space at its end, and that white space.

    Raises:
        Unusable: the template fails on this row; the text says why.
    """
    if is_text(template):
        whole = _rendered(template, given)
    else:
        value = _loaded(template)
        whole = _rendered(value, given) if isinstance(value, str) else _called(template, value, given)
    prompt = whole.rstrip(" \t\n")
    if not prompt:
        raise Unusable("the template makes an empty prompt")
    return prompt, whole[len(prompt) :]


def _rendered(text: str, given: Mapping[str, Any]) -> str:
    """The text before the answer."""
    from jinja2 import TemplateError

    try:
        whole = _compiled(text).render(**given, **{OUTPUT: _MARK})
    # An error of the sandbox, of an undefined name, or of an operation on values of another form.
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Unusable(f"the template fails on it ({first_line(error)})") from error
    before, mark, after = whole.partition(_MARK)
    if not mark or after.strip():
        where = f"has {brief(after)!r} after the answer" if mark else "does not show the answer unchanged"
        raise Unusable(f"the template {where}; end it with {{{{ {OUTPUT} }}}}, without a filter or a condition")
    return before


def _called(path: str, function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    try:
        made = function(**imports.wanted(function, dict(given)))
    except Exception as error:  # whatever a function of others raises
        raise Unusable(f"{path} fails on it ({first_line(error)})") from error
    if not isinstance(made, str):
        raise Unusable(f"{path} returns {imports.shown(made)}, not the text of the prompt")
    return made


def uses(template: str, name: str) -> bool:
    """Whether a template shows this part of a row."""
    value = template if is_text(template) else _loaded(template)
    if isinstance(value, str):
        from jinja2 import meta

        return name in meta.find_undeclared_variables(_environment().parse(value))
    return name in imports.wanted(value, dict.fromkeys(GIVEN))


@lru_cache(maxsize=16)
def example(template: str) -> str:
    """The prompt of a made-up row without its separator, by which the border is chosen; "" if there is none.

    Every column that it shows holds its own name.
    """
    try:
        return prompt_and_separator(template, _EXAMPLE | {"columns": _Named()})[0]
    except Unusable:
        return ""


class _Named(dict[str, str]):
    """A row that has every column, with its own name in it."""

    def __missing__(self, key: str) -> str:
        return str(key)


@cache
def _loaded(path: str) -> Any:
    return imports.load("data.template", path)


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Absent(StrictUndefined):
        """What is not there cannot be shown, but can be asked for: ``{% if columns.topic %}``."""

        def __bool__(self) -> bool:  # type: ignore[override]
            return False

    return ImmutableSandboxedEnvironment(undefined=Absent, keep_trailing_newline=True, trim_blocks=True)


@lru_cache(maxsize=16)
def _compiled(text: str) -> Any:
    return _environment().from_string(text.rstrip("\n"))
