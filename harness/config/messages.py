"""Errors as one readable message on the console, and mistakes that are found before anything is composed."""

import errno
import re
from collections.abc import Iterable

from harness.config.names import config_groups
from harness.errors import HarnessError, RunFault, brief

TRACEBACK = "HARNESS_TRACEBACK"  # environment variable: 1 shows where an error came from

# Values that Hydra takes for a group, or crashes on, although they do not name an option.
NOT_AN_OPTION = re.compile(r"|null|true|false|[-+.\d]+|\{.*", re.IGNORECASE)


def is_input_fault(error: BaseException) -> bool:
    """Whether the user's input caused the error, not the run."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OSError):
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    wrong = (HarnessError, HydraException, OmegaConfBaseException)
    return isinstance(error, wrong) and not isinstance(error, RunFault)


def explain(error: BaseException) -> str:
    """One readable message: key, value and remedy, without Hydra's frame around it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from harness.config.library_errors import hydra_message, omegaconf_message

    if isinstance(error, HarnessError):
        return f"error: {error}"
    if isinstance(error, HydraException):
        return f"error: {hydra_message(error)}"
    if isinstance(error, OmegaConfBaseException):
        return f"error: {omegaconf_message(error)}"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"error: {error.filename}: {reason}" if error.filename else f"error: {reason}"
    return f"error: {type(error).__name__}: {brief(str(error))}\nset {TRACEBACK}=1 to see where it was raised"


def nested_sweeps(overrides: Iterable[str]) -> list[str]:
    """Faults of overrides such as ``seed=range(0,3),5``, which Hydra reads and then cannot compose."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, Glob, RangeSweep, Sweep
    from hydra.errors import HydraException

    faults = []
    for override in overrides:
        key, _, text = override.partition("=")
        if "(" not in text or "," not in text:
            continue
        try:
            value = OverridesParser.create().parse_override(override)._value
        except HydraException:
            continue  # reported with the others
        if not isinstance(value, ChoiceSweep) or not any(isinstance(item, Sweep | Glob) for item in value.list):
            continue
        flat: list[str] = []
        for item in value.list:
            if isinstance(item, ChoiceSweep):
                flat += [str(each) for each in item.list]
            elif isinstance(item, RangeSweep):
                flat += [str(each) for each in item.range()]
            else:
                flat += [] if isinstance(item, Sweep | Glob) else [str(item)]
        whole = not any(isinstance(item, Glob) or type(item).__name__ == "IntervalSweep" for item in value.list)
        remedy = f"write {key}={','.join(flat)}" if whole else "give the function alone, or a list of values"
        faults.append(f"{brief(override)} mixes a function with other values; {remedy}")
    return faults


def misused_groups(overrides: Iterable[str]) -> list[str]:
    """Faults of overrides that Hydra accepts, or crashes on, although a group takes one option.

    ``peft=[lora,ia3]`` would merge both options into one run, in which only the last method counts.
    """
    faults = []
    for override in overrides:
        group, equals, value = override.partition("=")
        if equals and not group:
            faults.append(f"{brief(override)} has no key; write key=value")
        options = config_groups().get(group)
        if not equals or options is None or group == "experiment":
            continue
        if value.startswith("["):
            each = f"-m {group}={value.strip('[]')}"
            faults.append(f"{brief(override)} would merge its options into one run; use {each} to run each")
        elif NOT_AN_OPTION.fullmatch(value):
            faults.append(f"{brief(override)} does not name an option; options: {', '.join(options)}")
    return faults
