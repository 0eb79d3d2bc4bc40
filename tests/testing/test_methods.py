"""The contract of methods: ours keep it, and each check sees what it is for."""

import copy
import types
from dataclasses import replace

import pytest
import torch

from harness.methods.knobs import Knob, up_to_width
from harness.testing import methods
from harness.testing.methods import CHECKS, Broken, NotClaimed, Subject
from tests.support.runs import loaded, overrides, plan_of, write_rows

STEPS = ("trainer.max_steps=4", "trainer.evaluations=2", "trainer.keep_best=false", "trainer.kernels=plain")


@pytest.fixture(scope="module")
def subject(random_qwen2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    words = (
        *overrides(random_qwen2, write_rows(folder / "rows"), folder / "runs"),
        *STEPS,
        "trainer.deterministic=true",
    )

    def of(method, *more):
        return Subject(method, loaded(random_qwen2), lambda *own: plan_of(*words, *own, *more)[0])

    return of


@pytest.fixture(scope="module")
def lora(subject):
    return subject("lora", "lora.r=4")


@pytest.mark.parametrize("check", CHECKS)
def test_lora_keeps_the_contract(lora, check):
    assert isinstance(CHECKS[check](lora), str)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["ia3", "adalora", "adapter", "prompt_tuning", "p_tuning_v2", "bitfit", "full", "vera"]
)
def test_ours_keep_the_contract(subject, method):
    made = subject(method, *(["bitfit.add_missing=true"] if method == "bitfit" else []))
    for name, check in CHECKS.items():
        try:
            check(made)
        except NotClaimed:
            continue
        except Broken as broken:
            pytest.fail(f"{method}: {name}: {broken}")


def breaks(check, subject, message):
    with pytest.raises(Broken, match=message):
        CHECKS[check](subject)


def other(lora, **changed):
    """The subject with other attributes."""
    made = copy.copy(lora)
    for name, value in changed.items():
        setattr(made, name, types.MethodType(value, made) if callable(value) else value)
    return made


@pytest.fixture
def claims(lora, monkeypatch):
    usual = lora.traits

    def of(**traits):
        monkeypatch.setattr(methods, "traits_of", lambda method, settings: replace(usual, **traits))
        return lora

    return of


def test_a_start_that_is_the_base_must_be_claimed(claims):
    breaks("identity at start", claims(identity_at_start=False), "say identity_at_start=True")


def test_a_claimed_start_that_is_not_the_base_is_seen(lora):
    def attached(self, plan=None):
        model = Subject.attached(self, plan)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.add_(0.1)
        return model

    breaks("identity at start", other(lora, attached=attached), "start it at zero, or say identity_at_start=False")


def test_merging_must_be_claimed(claims):
    breaks("merging", claims(mergeable=False), "although its traits say mergeable=False")


def test_what_does_not_bear_gradient_checkpointing_need_not(claims):
    with pytest.raises(NotClaimed):
        CHECKS["gradient checkpointing"](claims(checkpointing=False))


def test_a_method_that_trains_nothing_is_seen(lora):
    untouched = types.SimpleNamespace(model=lora.attached(), result=None)
    made = other(lora)
    made.__dict__["after"] = untouched
    breaks("trains", made, "training changes no weight")


def test_an_adapter_that_is_not_saved_whole_is_seen(lora):
    trained = lora.after
    started = lora.attached()
    made = other(lora)
    made.__dict__["after"] = types.SimpleNamespace(
        model=trained.model, write=lambda folder: started.save_pretrained(folder)
    )
    breaks("save and reload", made, "something that is trained is not saved")


def test_a_start_drawn_without_the_seed_is_seen(lora):
    def attached(self, plan=None):
        model = Subject.attached(self, plan)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_A" in name:
                    weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(id(model) % 1000)))
        return model

    breaks("determinism", other(lora, attached=attached), "differ in .*lora_A.*; seed what it draws by context.seed")


def test_a_knob_that_turns_the_wrong_way_is_seen(lora, monkeypatch):
    knob = Knob("r", up_to_width, falls=True)
    monkeypatch.setitem(methods.METHODS, "lora", replace(methods.METHODS["lora"], knobs=(knob,)))
    breaks("budget", lora, "r=2 trains .* and r=4 trains .*; correct its Knob")
    monkeypatch.setitem(methods.METHODS, "lora", replace(methods.METHODS["lora"], knobs=()))
    with pytest.raises(NotClaimed):
        CHECKS["budget"](lora)
