"""Rules about the shape of results: what they say, and what is refused."""

import pytest

from harness.errors import ConfigFault
from harness.report.shape import grammar
from harness.report.shape.grammar import (
    Arithmetic,
    Best,
    BestRate,
    Deviation,
    Flat,
    Gap,
    Order,
    Place,
    Selection,
    Span,
    Spread,
    Trend,
    Within,
    parse_rule,
)

LORA, FULL, ANY = Selection("lora"), Selection("full"), Selection(None)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("monotone(score, lora.r)", Trend("monotone", "score", "lora.r", ANY)),
        ("falls(loss, lora.r, lora)", Trend("falls", "loss", "lora.r", LORA)),
        (
            "rises(gap(loss, lora, full), trainer.batch_size)",
            Trend("rises", Gap("loss", LORA, FULL), "trainer.batch_size", ANY),
        ),
        (
            "within(best_rate(lora) / best_rate(full), 5, 20)",
            Within(Arithmetic("/", BestRate(LORA), BestRate(FULL)), 5, 20),
        ),
        (
            "within(best(loss, lora) - best(loss, full), -0.01, 1e-2)",
            Within(Arithmetic("-", Best("loss", LORA), Best("loss", FULL)), -0.01, 0.01),
        ),
        (
            "best(loss, lora, lora.r == highest) <= best(loss, full)",
            Order("<", Best("loss", Selection("lora", (("lora.r", "highest"),))), Best("loss", FULL)),
        ),
        ("spread(loss) < spread(loss, lora)", Order("<", Spread("loss", None), Spread("loss", LORA))),
        (
            "span(loss, lora.r, lora) > sd(loss, lora)",
            Order(">", Span("loss", "lora.r", LORA), Deviation("loss", LORA)),
        ),
        ("flat(rouge_l, lora.r, 1.5)", Flat("rouge_l", "lora.r", 1.5, ANY)),
        ("first(loss) != q_only", Place("first", "loss", ("q_only",), True)),
        ("last(loss) in [q_only, k_only]", Place("last", "loss", ("q_only", "k_only"), False)),
    ],
)
def test_rule_is_read(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a rule"),
        ("monotone(loss", "is not a rule"),
        ("best(loss, lora)", "compares best(...) with nothing"),
        ("lora", "compares nothing"),
        ("__import__('os').system('x')", "cannot be read"),
        ("eval(loss)", "unknown rule eval"),
        ("best(loss, lora) < open(loss)", "unknown number open"),
        ("lora.real < 3", "is not a number"),
        ("(lambda x: x) < 3", "cannot be read"),
        ("best(loss, lora) == best(loss, full)", "write within(a - b"),
        ("best(loss) < 3", "does not say which arm"),
        ("best() < 3", "gives best no arguments"),
        ("within(best_rate(lora), 20, 5)", "empty range"),
        ("within(best_rate(lora), 5)", "gives within 2 arguments"),
        ("within(best_rate(lora), lora, 5)", "not a plain number"),
        ("monotone(gap(loss, lora, full), lora.r)", "asks of a gap to get better"),
        ("monotone(best_rate(lora), lora.r)", "neither a score nor a gap"),
        ("rises(gap(loss, lora, full), lora.r, lora)", "restricts a gap"),
        ("flat(loss, lora.r, 0)", "must be above 0"),
        ("first(loss) < lora", "compares first with an order"),
        ("first(loss) in lora", "no list behind in"),
        ("first(loss) in []", "empty list"),
        ("best(loss, lora, lora.r > 8) < 3", "condition that is not of the form"),
        ("best(loss, *lora) < 3", "argument that is not a word"),
        ("1 < 2 < 3", "compares nothing"),
        ("gap(loss, lora) < 3", "gives gap 2 arguments"),
        ("+".join(["1"] * 60) + " < 3", "nested too deeply"),
    ],
)
def test_what_is_not_a_rule_is_refused_with_the_key_and_an_example(text, said):
    with pytest.raises(ConfigFault) as caught:
        parse_rule(text)
    assert said in str(caught.value)
    assert "paper.expect" in str(caught.value)
    assert grammar.EXAMPLE in str(caught.value)


def test_rule_names_its_arms_and_scores():
    rule = parse_rule("best(loss, lora) - 2 * best(rouge_l, full) < gap(chrf, lora, ia3)")
    assert grammar.arms_of(rule) == ("lora", "ia3", "full")
    assert grammar.metrics_of(rule) == ("chrf", "loss", "rouge_l")
    assert grammar.arms_of(parse_rule("first(loss) in [a, b]")) == ("a", "b")
    assert grammar.metrics_of(parse_rule("rises(gap(loss, lora, full), lora.r)")) == ("loss",)
