"""Wrong settings are answered by one readable message that starts with the override and ends with the remedy."""

import errno

import pytest

from harness.config.messages import TRACEBACK, explain, is_input_fault, misused_groups, nested_sweeps
from harness.errors import ConfigFault, HarnessError, RunFault
from harness.plan.read import read_config
from tests.support.configs import overridden

WRONG = [
    (["sed=1"], "sed=1: there is no setting sed; did you mean seed?"),
    (["lora.alpha=8"], "lora.alpha=8: there is no setting lora.alpha; did you mean lora.lora_alpha?"),
    (["trainer.epochss=1"], "there is no setting trainer.epochss; did you mean trainer.epochs?"),
    (["learning_rate=1"], "there is no setting learning_rate; did you mean trainer.learning_rate"),
    (["xyzzy=1"], "xyzzy=1: there is no setting xyzzy; python -m harness --help lists"),
    (["+lora.rr=4"], "there is no setting lora.rr; did you mean lora.r?"),
    (["++stray=1"], "there is no setting stray"),
    (["++trainer={epohcs: 1}"], "there is no setting trainer.epohcs; did you mean trainer.epochs?"),
    (["+lora.r=4"], "+lora.r: lora.r already exists; remove the +"),
    (["lora.rank_pattern={q_proj: 4}"], "needs a plus: +lora.rank_pattern.q_proj=4"),
    (["lora.r=abc"], "lora.r=abc: lora.r needs a whole number"),
    (["lora.r=1.5"], "lora.r needs a whole number"),
    (["trainer.epochs=many"], "trainer.epochs needs a number"),
    (["trainer.keep_best=perhaps"], "trainer.keep_best needs true or false"),
    (["trainer.epochs=null"], "trainer.epochs cannot be null"),
    (["trainer.schedule=warm"], "must be one of linear, cosine, constant"),
    (["scoring.metrics=bleu"], "scoring.metrics needs a list, such as [a,b]"),
    (["model.path=[a]"], "model.path needs one text"),
    (["data.limits=3"], "data.limits is a group of settings; set one of them, e.g. data.limits.train"),
    (["~lora.r"], "lora.r cannot be deleted"),
    (["~lora"], "lora has no value"),
    (["lora.r=4,8"], "lora.r=4,8 has several values: add -m to run each"),
    (['lora.rank_pattern={"q_proj": 4}'], "take no quotes; write '+lora.rank_pattern={q_proj: 4}'"),
    (["+lora.rank_pattern={'.*(q|v)_proj': 4}"], r"write '+lora.rank_pattern={.*\(q|v\)_proj: 4}'"),
    (["lora.r=[1"], "lora.r=[1 cannot be read as key=value"),
    (["lora"], "lora cannot be read as key=value"),
    (["model.path=${oops}"], "model.path refers to 'oops', which is not a setting"),
    (["seed=${seed}"], "seed refers to itself"),
    (["trainer.learning_rate=nan"], "trainer.learning_rate=nan must be a finite number"),
    (["model.path=none"], "model.path=none: no such folder"),
]


@pytest.mark.parametrize(
    ("overrides", "said"), WRONG, ids=lambda value: value[0][:30] if isinstance(value, list) else ""
)
def test_wrong_setting_is_answered_in_one_message(overrides, said):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it must be explained
        read_config(overridden(*overrides))
    text = explain(caught.value)
    assert said in text
    assert "full_key" not in text
    assert "append to your config" not in text
    assert is_input_fault(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HarnessError("a=1; b"), "error: a=1; b"),
        (OSError("x"), "error: x"),
        (OSError(errno.ENOENT, "No such file", "f"), "error: f: No such file"),
        (ValueError(""), f"error: ValueError: \nset {TRACEBACK}=1 to see where it was raised"),
        (KeyError("k"), f"error: KeyError: 'k'\nset {TRACEBACK}=1 to see where it was raised"),
    ],
)
def test_every_error_is_explained(error, message):
    assert explain(error) == message


@pytest.mark.parametrize(
    ("error", "input_fault"),
    [
        (ConfigFault("x"), True),
        (PermissionError(errno.EACCES, "x"), True),
        (OSError(errno.ENOSPC, "x"), False),
        (RunFault("x"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_input_faults_are_told_from_failed_runs(error, input_fault):
    assert is_input_fault(error) is input_fault


@pytest.mark.parametrize("value", ["", "null", "True", "3", "-1.5", "{a: 1}"])
def test_value_that_does_not_name_an_option_is_refused_before_hydra_sees_it(value):
    [fault] = misused_groups([f"peft={value}"])
    assert fault.startswith(f"peft={value} does not name an option; options: adalora, ")


@pytest.mark.parametrize("override", ["peft=lora", "peft=lora,ia3", "experiment=[ranks]", "seed=3", "lora.r=null"])
def test_options_and_settings_pass(override):
    assert misused_groups([override]) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=range(0,3),5", "write seed=0,1,2,5"),
        ("lora.r=choice(4,8),16", "write lora.r=4,8,16"),
        ("peft=lora,glob(i*)", "give the function alone, or a list of values"),
    ],
)
def test_a_sweep_inside_a_list_of_values_is_written_out(override, said):
    [found] = nested_sweeps([override])
    assert found.startswith(override)
    assert said in found
    advised = found.rpartition("write ")[2]
    assert "=" not in advised or nested_sweeps([advised]) == []


def test_plain_sweeps_are_left_alone():
    assert nested_sweeps(["lora.r=4,8", "seed=range(0,3)", "peft=glob(*)", "prompt=a (b), c", "broken=(,"]) == []
