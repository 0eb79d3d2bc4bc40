"""The rule of the default learning rate."""

import math

import pytest

from harness.methods.lora import lora_rate_factor
from harness.methods.rates import RateContext, RateRule
from harness.methods.registry import METHODS, rate_rule

RULE = RateRule(tiny=4e-3, small=1e-3, source="a paper")


def rate(rule: RateRule = RULE, width: int = 160, family: str = "llama", rows: int = 16, steps: int | None = None):
    return rule.rate(RateContext(width, family, rows, steps), {})


def test_the_points_are_what_the_rule_gives_at_their_widths():
    assert rate(width=160) == 4e-3
    assert rate(width=576) == 1e-3


def test_between_the_points_the_rate_is_a_power_of_the_width():
    middle = round(math.sqrt(160 * 576))
    assert rate(width=middle) == pytest.approx(2e-3, rel=0.02)


def test_below_the_smaller_width_the_rate_is_constant():
    assert rate(width=16) == rate(width=160)


@pytest.mark.parametrize(("family", "power"), [("llama", 0.781), ("qwen2", 0.0775), ("gemma3_text", 0.43)])
def test_above_the_larger_width_it_falls_as_the_family_does(family, power):
    assert rate(width=2304, family=family) == pytest.approx(1e-3 * 0.25**power, rel=0.05)


def test_gemma_has_a_factor_of_the_method():
    rule = RateRule(tiny=4e-3, small=1e-3, source="a paper", gemma=8.0)
    for width in (160, 640):
        own = rate(width=width, family="gemma3_text")
        assert rate(rule, width, "gemma3_text") == pytest.approx(8 * own, rel=0.02)
        assert rate(rule, width, "llama") == rate(width=width, family="llama")


def test_it_grows_with_the_square_root_of_the_rows_per_step():
    assert rate(rows=64) == pytest.approx(2 * rate(rows=16))
    assert rate(rows=4) == pytest.approx(rate(rows=16) / 2)


def test_short_runs_get_more_and_never_more_than_half_again():
    assert rate(steps=100) == rate(steps=1000) == rate()
    assert rate() < rate(steps=50) < rate(steps=20) == rate(steps=1) == pytest.approx(1.5 * rate())


def test_initializations_from_the_weights_need_less():
    base = lora_rate_factor({"init_lora_weights": True})
    assert lora_rate_factor({"init_lora_weights": "pissa_niter_4"}) == pytest.approx(base / 10)
    assert lora_rate_factor({"init_lora_weights": "olora"}) == pytest.approx(base / 3.2)
    assert lora_rate_factor({"init_lora_weights": "lora_ga"}) == pytest.approx(base / 18)
    assert lora_rate_factor({"init_lora_weights": "gaussian"}) == base == 1


def test_lora_keeps_its_rate_over_ranks_and_lowers_it_with_the_scale():
    assert lora_rate_factor({"r": 4, "lora_alpha": 32}) == lora_rate_factor({"r": 64, "lora_alpha": 32}) == 1
    assert lora_rate_factor({"r": 16, "lora_alpha": 64}) == 0.5
    assert lora_rate_factor({"r": 16, "lora_alpha": 32, "use_rslora": True}) == 0.25


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_rule_that_falls_from_the_embedded_model_to_a_real_one(method):
    rule = rate_rule(method, {"type": "delora", "settings": {}})
    assert rule is not None
    assert 0 < rule.small <= rule.tiny <= 1
    assert rule.source


def test_a_type_of_the_library_has_the_rule_of_its_method():
    assert rate_rule("library", {"type": "IA3", "settings": {}}) is METHODS["ia3"].rate
    assert rate_rule("library", {"type": "delora", "settings": {}}) is METHODS["library"].rate
