"""Settings of the data that cannot work by themselves."""

import pytest

from harness.data.checks import data_faults
from tests.support.data_cases import ALPACA, MESSAGES, fault, settings


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ({"output": "a"}, {}, "data.columns.instruction=null but data.format=alpaca needs it; name the column"),
        ({"instruction": "a"}, {}, "data.columns.output=null but data.format=alpaca needs it"),
        ({}, {"format": "messages"}, "data.columns.messages=null but data.format=messages needs it"),
        (ALPACA, {"path": ""}, "data.path is empty; name a file"),
        (ALPACA, {"fractions": (1.0, 0)}, "data.fractions.validation=1.0"),
        (ALPACA, {"fractions": (0, float("nan"))}, "data.fractions.test=nan"),
        (ALPACA, {"fractions": (0.5, 0.5)}, "data.fractions.validation + data.fractions.test leave no training rows"),
        (ALPACA, {"limits": (0, None, None)}, "data.limits.train=0"),
        (ALPACA, {"max_tokens": 3}, "data.max_tokens=3"),
    ],
)
def test_each_fault_names_key_and_value(columns: dict, changes: dict, message: str) -> None:
    made = settings(changes.get("path", "rows.jsonl"), columns, **{k: v for k, v in changes.items() if k != "path"})
    (found,) = data_faults(made)
    assert found.startswith(message)


@pytest.mark.parametrize("columns", [ALPACA, MESSAGES])
def test_sound_settings_have_no_fault(columns: dict) -> None:
    assert list(data_faults(settings("rows.jsonl", columns))) == []


def test_reading_without_a_plan_asks_too() -> None:
    assert "data.limits.test=-1" in fault("rows.jsonl", limits=(None, None, -1))
