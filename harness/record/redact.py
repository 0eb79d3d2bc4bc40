"""What must not reach a file: secrets, and numbers that JSON cannot hold."""

import math
import os
import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """Values that JSON lacks but records contain: paths, enums, and numbers of numpy and torch."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"a record cannot hold {value!r} of type {type(value).__name__}; use a number or text")


_SECRET_NAME = re.compile(r"API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_KEY$", re.IGNORECASE)


_SECRET_TEXT = re.compile(
    r"(?P<user>(?<=://)[^\s/@]+(?=@))"  # https://name:password@host
    r"|(?P<bearer>(?<=Bearer )\S{8,})"
    r"|(?P<key>\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|wandb_v1_)[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}\b)"
)


_LEAST_SECRET = 8  # shorter values ("true", "0") are flags, and redacting them would garble the record


def redactor() -> Callable[[str], str]:
    """A function that redacts known shapes of keys, and the values of environment variables named like one."""
    named = {value: f"<{name}>" for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    # Longest first: a secret may contain another.
    secrets = sorted((value for value in named if len(value) >= _LEAST_SECRET), key=len, reverse=True)

    @cache  # a curve repeats its keys thousands of times
    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, named[secret])
        return _SECRET_TEXT.sub("<secret>", text)

    return redact


def clean(value: Any, where: str, lost: list[str], redact: Callable[[str], str]) -> Any:
    """A copy that JSON can hold; the keys of numbers that it cannot hold are appended to ``lost``."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return redact(value)
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        lost.append(where)
        return None
    if isinstance(value, Mapping):
        return {
            redact(str(key)): clean(item, f"{where}.{key}".lstrip("."), lost, redact) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, f"{where}[{number}]", lost, redact) for number, item in enumerate(value)]
    return clean(to_plain(value), where, lost, redact)
