"""Which names exist, and which one a misspelled name may mean."""

import pytest

from harness.config import names


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("lora.rr", "lora.r"),
        ("Lora.r", "lora.r"),
        ("trainer.lr", None),
        ("trainer.learning_rte", "trainer.learning_rate"),
        ("scoring.generation.temprature", "scoring.generation.temperature"),
        ("scoring.temperature", "scoring.generation.temperature"),
        ("temperature", "scoring.generation.temperature"),
        ("dataa", "data"),
        ("qqqqqq", None),
    ],
)
def test_nearest_name(wrong, meant):
    close = names.nearest_keys(wrong)
    assert close[:1] == ([meant] if meant else close[:1])
    assert len(close) <= 3


def test_every_known_key_is_its_own_nearest():
    for key in names.known_settings():
        assert names.nearest_keys(key)[0] == key


@pytest.mark.parametrize(
    ("key", "override", "message"),
    [
        ("lora.rr", "", "there is no setting lora.rr; did you mean lora.r?"),
        ("lora.rank_pattern.q", "+x", "a new entry of lora.rank_pattern needs a plus: +lora.rank_pattern.q=..."),
        ("lora.rank_pattern.q", "lora.rank_pattern={q: 4, k: 2}", "needs a plus: +lora.rank_pattern.q=4"),
        ("qqqqqq", "", f"there is no setting qqqqqq; {names.SEE_HELP}"),
    ],
)
def test_unknown_key_is_answered_with_what_to_type(key, override, message):
    assert message in names.unknown_key(key, override)


@pytest.mark.parametrize(
    ("option", "options", "message"),
    [
        ("loar", None, "peft=loar does not exist; did you mean peft=lora? options: adalora, "),
        ("b", ("bb", "c"), "peft=b does not exist; did you mean peft=bb? options: bb, c"),
        ("b", (), "peft=b does not exist; the group has no options"),
    ],
)
def test_unknown_option_is_answered_with_those_that_exist(option, options, message):
    assert names.no_option("peft", option, options).startswith(message)


def test_groups_are_those_that_a_command_chooses_from():
    groups = names.config_groups()
    assert {"model", "peft", "data", "trainer", "scoring", "tracker", "experiment"} <= set(groups)
    assert "hydra" not in groups
    assert {"lora", "ia3"} <= set(groups["peft"])
