"""Import paths: what they are, what they lead to, and what a wrong one says."""

import os
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigFault
from harness.extensions import imports
from tests.support.own_code import importable, write

KEY = "scoring.metrics"


@pytest.mark.parametrize("path", ["my_pkg.metrics:politeness", "metrics:f1", "größe.maß:güte"])
def test_a_module_and_a_name_are_an_import_path(path):
    assert imports.is_import_path(path)


@pytest.mark.parametrize(
    "value", ["exact_match", "a:", ":b", "a.b", "C:/rows.jsonl", "a:b c", "http://x", "{{ a:b }}", None, 1]
)
def test_other_text_is_none(value):
    assert not imports.is_import_path(value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_missing:f", "scoring.metrics=own_missing:f: there is no module own_missing; install its package"),
        ("own_a:politenes", "own_a has no politenes; did you mean own_a:politeness?"),
        ("own_a:zzz", "own_a has no zzz; define it there"),
        ("own_b:f", "own_b imports own_missing, which is not installed"),
        ("own_c:f", r"importing own_c fails (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_and_what_to_do(tmp_path, path, message):
    write(tmp_path, own_a="def politeness(): ...", own_b="import own_missing", own_c="1 / 0")
    with importable(tmp_path), pytest.raises(ConfigFault) as fault:
        imports.load(KEY, path)
    assert message in str(fault.value)


def call_faults(function):
    return list(
        imports.call_faults(KEY, "m:f", function, ("predictions", "references", "input"), ("predictions", "references"))
    )


def test_a_function_that_takes_the_keywords_is_right():
    assert not call_faults(lambda predictions, references: 1)
    assert not call_faults(lambda predictions, references, input, extra=3: 1)
    assert not call_faults(lambda predictions, references, **columns: 1)
    assert not call_faults(lambda **everything: 1)


def test_a_function_with_other_parameters_is_refused():
    assert call_faults(lambda answers, references: 1)[0].startswith("scoring.metrics=m:f takes (answers, references)")
    assert "define it as f(predictions, references, ...)" in call_faults(lambda a, b: 1)[0]
    [fault] = call_faults(lambda predictions, references, topic: 1)
    assert "takes topic, which is not known here; it may take predictions, references, input" in fault
    assert "is a int, not a function" in call_faults(3)[0]


def test_what_a_function_does_not_take_is_left_out():
    given = {"a": 1, "b": 2}
    assert imports.wanted(lambda a: a, given) == {"a": 1}
    assert imports.wanted(lambda **columns: 1, given) == given


def test_the_working_folder_is_searched_once_and_told_to_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    monkeypatch.setenv(imports.PROJECT, "")
    imports.begin(tmp_path)
    imports.begin(tmp_path)
    assert sys.path == [str(tmp_path), "/elsewhere"]
    assert os.environ[imports.PROJECT] == str(tmp_path)
    monkeypatch.chdir("/")
    assert imports.project_folder() == tmp_path


def test_a_folder_with_a_project_of_its_own_comes_before_that_of_the_command(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setenv(imports.PROJECT, "/somewhere")
    monkeypatch.chdir(tmp_path)
    assert imports.project_folder() == Path.cwd()
