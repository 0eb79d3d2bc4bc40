"""Secrets and numbers that JSON cannot hold."""

import math
from enum import Enum
from pathlib import Path

import pytest

from harness.record.redact import clean, redactor


class Color(Enum):
    red = "red"


def test_values_that_json_lacks_become_plain():
    lost: list[str] = []
    value = {"path": Path("a/b"), "set": {"b", "a"}, "color": Color.red, "nan": [1.0, math.inf], "none": None}
    plain = clean(value, "", lost, lambda text: text)
    assert plain == {"path": "a/b", "set": ["a", "b"], "color": "red", "nan": [1.0, None], "none": None}
    assert lost == ["nan[1]"]
    with pytest.raises(TypeError, match="cannot hold"):
        clean(object(), "", lost, lambda text: text)


def test_values_of_secret_variables_and_known_shapes_of_keys_are_redacted(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    redact = redactor()
    assert redact("key 0123456789abcdef is true") == "key <MY_API_KEY> is true"
    assert redact("https://me:secret@host/x") == "https://<secret>@host/x"
    assert redact("hf_" + "a" * 20) == "<secret>"
