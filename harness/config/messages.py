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


# A function of several values beside other values: Hydra evaluates neither.
_MIXED = re.compile(
    r"(?P<function>(?:range|interval|glob|choice)\([^()]*\)),|,\s*(?P<last>(?:range|interval|glob|choice)\()"
)

_RANGE = re.compile(r"range\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?(?:,\s*(-?[1-9]\d*)\s*)?\)")


def mixed_sweeps(overrides: Iterable[str]) -> list[str]:
    """Faults of overrides such as ``seed=range(0,3),5``, on which Hydra fails without saying why."""
    faults = []
    for override in overrides:
        key, _, value = override.partition("=")
        if value[:1] in ("'", '"', "[", "{") or not _MIXED.search(value):
            continue
        listed = _RANGE.sub(_numbers, value)
        whole = not _MIXED.search(listed)
        advice = f"write {key}={brief(listed)}" if whole else "give the function alone, or a list of values"
        faults.append(f"{brief(override)} mixes a function with other values; {advice}")
    return faults


def _numbers(match: re.Match[str]) -> str:
    """What a range of whole numbers stands for."""
    first, second, step = match.groups()
    bounds = (0, int(first)) if second is None else (int(first), int(second))
    return ",".join(map(str, range(*bounds, int(step or 1))))


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
