"""Claims as they are typed: their text, their parts, and what is refused before anything runs."""

import pytest

from harness.config.schema import Relation
from harness.errors import ConfigFault
from harness.plan.claims import read_claim
from harness.plan.read import read_config
from tests.support.configs import overridden


def claim_of(*words):
    return read_claim(settings_of(*words))


def settings_of(*words):
    return read_config(overridden("stage=claim", *words))[1].claim


def refused(*words):
    with pytest.raises(ConfigFault) as caught:
        settings_of(*words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "better", "than", "relation", "metric", "margin", "equal_budget"),
    [
        ("lora > ia3 on names_target", "peft=lora", "peft=ia3", "better", "names_target", 0.0, False),
        ("lora > ia3", "peft=lora", "peft=ia3", "better", "loss", 0.0, False),
        ("lora < ia3 on bleu", "peft=ia3", "peft=lora", "better", "bleu", 0.0, False),
        ("lora == ia3 on loss within 0.01", "peft=lora", "peft=ia3", "equal", "loss", 0.01, False),
        ("lora > ia3 on bleu within 2 at equal budget", "peft=lora", "peft=ia3", "better", "bleu", 2.0, True),
        (
            "peft=lora lora.use_dora=true > lora lora.r=4",
            *("peft=lora lora.use_dora=true", "peft=lora lora.r=4", "better", "loss", 0.0, False),
        ),
    ],
)
def test_a_claim_is_read_from_its_text(typed, better, than, relation, metric, margin, equal_budget):
    claim = claim_of(f"claim.text='{typed}'")
    assert (" ".join(claim.better), " ".join(claim.than)) == (better, than)
    assert (claim.relation.value, claim.metric, claim.margin) == (relation, metric, margin)
    assert claim.equal_budget is equal_budget
    assert claim_of(f"claim.text='{claim.text}'") == claim


def test_a_claim_is_read_from_its_parts():
    claim = claim_of(
        *("claim.better='lora lora.use_dora=true'", "claim.than=lora", "claim.relation=equal", "claim.margin=0.5"),
        *("claim.metric=bleu", "claim.equal_budget=true"),
    )
    assert claim.better == ("peft=lora", "lora.use_dora=true")
    assert (claim.relation, claim.metric, claim.margin, claim.equal_budget) == (Relation.equal, "bleu", 0.5, True)
    assert claim.slug == "lora-lora.use_dora-true-equal-lora-bleu"


def test_what_is_forgotten_does_not_choose_the_rate():
    assert claim_of("claim.text='lora > ia3 on forgetting_loss'").tuned_by == "loss"
    assert claim_of("claim.text='lora > ia3 on bleu'").tuned_by == "bleu"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "claim.better has no value; write claim.text='lora > ia3 on loss'"),
        (["claim.better=lora"], "claim.than has no value"),
        (["claim.text='lora beats ia3'"], "claim.text=lora beats ia3 is not '<arm> >, < or == <arm> on <score>'"),
        (["claim.text='lora > ia3'", "claim.metric=bleu"], "claim.text cannot be combined with claim.metric"),
        (["claim.text='dora > lora'"], "dora in claim.better is neither a method nor an override"),
        (["claim.text='lora seed=1 > ia3'"], "seed= in claim.better belongs to both arms"),
        (["claim.text='lora > ia3 claim.seeds=3'"], "claim.seeds= in claim.than belongs to both arms"),
        (['claim.text="lora lora.r=\'4 > ia3"'], "cannot be split into overrides"),
        (["claim.text='lora > ia3 on lss'"], "claim.metric=lss is unknown"),
        (["claim.text='lora > ia3 on final_number'"], "claim.metric=final_number is not measured"),
        (["claim.text='lora > ia3 on validation_loss'"], "is of the rows that the arms are tuned on"),
        (
            ["claim.text='lora > ia3 on forgetting_loss'", "scoring.forgetting=null"],
            "claim.metric=forgetting_loss is not measured",
        ),
        (["claim.text='lora == ia3'"], "claim.margin is 0, and no number of runs shows"),
        (["claim.text='lora > ia3 within x'"], "claim.margin=x is not a number"),
        (["claim.better=lora", "claim.than=ia3", "claim.margin=-1"], "claim.margin=-1 must be a number of at least 0"),
        (["claim.split=test"], "claim.split=test is also scoring.split"),
        (["claim.split=train"], "claim.split=train is unknown"),
        (["claim.rates=[]"], "claim.rates=[] has no rate"),
        (["claim.rates=[0,1]"], "claim.rates=0"),
        (["claim.rates=[1,1]"], "names a rate twice"),
        (["claim.seeds=0"], "claim.seeds=0 is too small"),
        (["claim.budget.runs=0"], "claim.budget.runs=0 is too small"),
        (["claim.budget.seconds=0"], "claim.budget.seconds=0"),
        (["claim.name=a/b"], "claim.name=a/b is not the name of a folder"),
        (["sweep.prune=halving"], "sweep.prune=halving would end one run of a pair before the other"),
        (["select.split=validation"], "select.split=validation chooses among the cells of a sweep"),
    ],
)
def test_what_makes_no_claim_is_refused(words, message):
    assert message in refused(*words)


def test_other_stages_do_not_ask_for_a_claim():
    plan, options = read_config(overridden("claim.split=test"))
    assert options.claim.split == "test"
    assert plan.fingerprint == read_config(overridden())[0].fingerprint
