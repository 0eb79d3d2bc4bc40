"""The arms of an experiment: which overrides make each, and which runs on record are of it.

An arm is a text of overrides, ``peft=lora lora.use_dora=true``. A run is of an arm if it has all of its values, and,
where only other arms of its method set a value, the method's own value there.
"""

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from harness.config.compose import sheet_values
from harness.config.names import config_groups
from harness.config.schema import Paper
from harness.errors import ConfigFault, brief
from harness.methods.registry import METHODS
from harness.report.shape.grammar import arms_of, metrics_of, parse_rule
from harness.report.shape.values import VALIDATION, equal
from harness.scoring.catalog import SCORES

SCORE = "score"  # in a rule: the first score of the group of runs


def overrides_of(arm: str) -> list[str]:
    """The overrides of an arm."""
    return shlex.split(arm)


def settings_of(arm: str) -> dict[str, Any]:
    """Values by setting; ``peft`` is the method. Sweeps are left out: they are no part of what the arm is."""
    return dict(_settings_of(arm))


@cache
def _settings_of(arm: str) -> Mapping[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString

    found = {}
    for override in OverridesParser.create().parse_overrides(overrides_of(arm)):
        if not override.is_sweep_override():
            value = override.value()
            found[str(override.key_or_group)] = value.text if isinstance(value, QuotedString) else value
    return found


def arms_with(fields: Mapping[str, Any], arms: Mapping[str, str]) -> tuple[str, ...]:
    """The arms that a run with these fields is of; its method, if no arms are declared."""
    if not arms:
        return (str(fields["method"]),)
    wanted = {name: settings_of(text) for name, text in arms.items()}
    return tuple(name for name, own in wanted.items() if _matches(fields, {**_unset(own, wanted), **own}))


def _unset(own: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The method's own values of what other arms of the method set."""
    method = own.get("peft")
    if method not in METHODS:
        return {}
    usual = sheet_values(str(method))
    others = {key for each in arms.values() if each.get("peft") == method for key in each}
    names = {key: key.removeprefix(f"{method}.") for key in others if key.startswith(f"{method}.")}
    return {key: usual[name] for key, name in names.items() if name in usual}


def _matches(fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    for name, value in wanted.items():
        if isinstance(value, str) and value.startswith("${") and value.endswith("}"):
            value = fields.get(value[2:-1])
        if not equal(fields.get(name), value):
            return False
    return True


def paper_faults(paper: Paper) -> list[str]:
    """What is wrong with the arms and rules of an experiment."""
    faults = []
    for name, text in paper.arms.items():
        faults += _arm_faults(name, text, paper.arms)
    for text in paper.expect:
        faults += _rule_faults(text, paper.arms)
    return faults


def _arm_faults(name: str, text: str, arms: Mapping[str, str]) -> list[str]:
    from hydra.errors import HydraException

    try:
        wanted = {each: settings_of(other) for each, other in arms.items()}
    except (HydraException, ValueError) as error:
        return [f"paper.arms.{name}={brief(text)} is not a list of overrides: {brief(str(error))}"]
    own = wanted[name]
    faults = [
        f"paper.arms.{name} chooses {group}={own[group]}, which no record could be matched by; set single settings"
        for group in own
        if group in config_groups() and group != "peft"
    ]
    elsewhere = dict.fromkeys(key for each in wanted.values() for key in each if key not in own)
    faults += [
        f"paper.arms.{name} does not set {key}, as other arms do; set it in each, so that runs can be told apart"
        for key in elsewhere
        if key == "peft" or key.partition(".")[0] not in METHODS
    ]
    return faults


def _rule_faults(text: str, arms: Mapping[str, str]) -> list[str]:
    try:
        rule = parse_rule(text)
    except ConfigFault as fault:
        return [str(fault)]
    known: Sequence[str] = tuple(arms) or tuple(METHODS)
    kind = "arm of this experiment" if arms else "method"
    faults = [
        f"paper.expect: {brief(text)} names {arm}, which is not a{'n' if arms else ''} {kind}; choose of "
        f"{', '.join(known)}"
        for arm in arms_of(rule)
        if arm not in known
    ]
    scores = (SCORE, VALIDATION, *SCORES)
    return faults + [
        f"paper.expect: {brief(text)} names {metric}, which is not a score; choose of {', '.join(scores)}"
        for metric in metrics_of(rule)
        if metric not in scores
    ]
