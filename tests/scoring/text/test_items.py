"""Items of answers."""

from collections import Counter

from harness.scoring.text.items import items


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
