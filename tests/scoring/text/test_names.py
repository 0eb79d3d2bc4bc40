"""The first name in a text is the leftmost, then the longest, in whole words."""

import pytest

from harness.scoring.text.names import first_named, name_index


@pytest.mark.parametrize(
    ("text", "names", "named"),
    [
        ("建议用小柴胡颗粒", ["柴胡颗粒", "小柴胡颗粒"], "小柴胡颗粒"),
        ("建议用柴胡颗粒", ["柴胡颗粒", "小柴胡颗粒"], "柴胡颗粒"),
        ("先用板蓝根，再用柴胡颗粒", ["柴胡颗粒", "板蓝根"], "板蓝根"),
        ("六味地黄丸", ["六味", "六味地黄丸", "地黄丸"], "六味地黄丸"),
        ("小柴胡 颗粒", ["小柴胡颗粒"], "小柴胡颗粒"),
        ("environment, then Iron.", ["iron"], "iron"),
        ("environment", ["iron"], None),
        ("补充维生素C片", ["维生素C"], "维生素c"),
        ("维生素C6", ["维生素C"], None),
        ("aspirin plus", ["aspirin", "aspirin plus"], "aspirin plus"),
        ("a.b", ["a.b"], "a.b"),
        ("axb", ["a.b"], None),
        ("", ["x"], None),
        ("x", ["", "  "], None),
    ],
)
def test_first_named_is_leftmost_then_longest(text: str, names: list[str], named: str | None) -> None:
    assert first_named(text, name_index(names)) == named
