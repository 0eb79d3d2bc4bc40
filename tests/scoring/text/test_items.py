"""Numbers and items of answers."""

from collections import Counter
from decimal import Decimal

import pytest

from harness.scoring.text.items import final_number, items


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5+3=8\n#### 1,234", "1234"),
        ("#### 7 apples, because 3+4=7, not 8", "7"),
        ("#### 7\n#### 9", "9"),
        ("It is 3 or 4.5.", "4.5"),
        ("so $-12.", "-12"),
        ("答案是８０", "80"),
        ("100.0", "100"),
    ],
)
def test_the_final_number_is_the_marked_one_or_the_last(text: str, number: str) -> None:
    assert final_number(text) == Decimal(number)


def test_a_text_without_a_number_has_none() -> None:
    assert final_number("none") is None
    assert final_number("3 apples: #### none") is None


def test_items_of_json_are_its_values_with_their_names() -> None:
    text = '{"intent": "PlayMusic", "slots": {"artist": ["Ana", "Bo"], "n": 3}}'
    assert items(text) == Counter(
        [(".intent", "PlayMusic"), (".slots.artist", "Ana"), (".slots.artist", "Bo"), (".slots.n", "3")]
    )
    assert items('{"slots": {"n": 3, "artist": ["Bo", "Ana"]}, "intent": "PlayMusic"}') == items(text)


def test_items_of_other_text_are_its_lines_without_headings() -> None:
    assert items("上述句子中的实体包含：\n中药实体：桂枝\n\n中药实体：桂枝") == Counter({("", "中药实体:桂枝"): 2})
    assert items('{"intent": 1') == Counter({("", '{"intent": 1'): 1})
    assert items("") == Counter()
