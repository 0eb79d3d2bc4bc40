"""What Hydra and OmegaConf report, in the harness's words: the override first, the remedy last."""

import errno
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_origin

from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from harness.config.names import closest, config_groups, known_settings, nearest_keys
from harness.errors import HarnessError, RunFault, brief

if TYPE_CHECKING:
    from hydra.errors import HydraException

TRACEBACK = "HARNESS_TRACEBACK"  # environment variable: 1 shows where an error came from


def is_input_fault(error: BaseException) -> bool:
    """Whether the user's input, not the run, is to blame."""
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

    if isinstance(error, HarnessError):
        return f"error: {error}"
    if isinstance(error, HydraException):
        return f"error: {hydra_message(error)}"
    if isinstance(error, OmegaConfBaseException):
        return f"error: {omegaconf_message(error)}"
    if isinstance(error, OSError):
        return f"error: {error.filename or ''}: {error.strerror or error}".replace("error: : ", "error: ")
    return f"error: {type(error).__name__}: {brief(str(error))}\n{TRACEBACK}=1 shows where it came from"


def hydra_message(error: "HydraException") -> str:
    """Hydra's complaint in the harness's words; its advice (``+key=value``) would only move the fault."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return no_option(group, option, error.options) if group else text
    if isinstance(error, OverrideParseException):
        return (
            f"{brief(error.override)} cannot be read as key=value; a value with brackets, commas, quotes or "
            f"spaces needs quotes of its own: 'key=\"a, b\"'"
        )
    in_file = re.match(r"In '(.*?)': \w+ raised while composing config", text)
    if in_file and isinstance(error.__context__, OmegaConfBaseException):
        return omegaconf_message(error.__context__, f"{in_file[1]}.yaml")
    override = re.search(r"(?:use \+|merging override )(.*)", text, re.DOTALL)
    shown = override[1] if override else ""
    if isinstance(error.__cause__, OmegaConfBaseException):
        return omegaconf_message(error.__cause__, shown)
    if match := re.match(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:$| requires|\n)", text, re.DOTALL
    ):
        value = match[1].partition("=")[2]
        return f"{brief(match[1])} has several values: add -m to run each, or write a list as [{brief(value)}]"
    if match := re.match(r"Could not append to config. An item is already at '(.*?)'", text):
        return f"+{match[1]}: {match[1]} exists; leave out the +"
    if match := re.match(r"Could not override '(.*?)@(.*?)'", text):
        return f"{brief(shown)}: no option of {match[1]} stands at {match[2]}; leave out @{match[2]}"
    if match := re.match(r"Could not override '(.*?)'", text):
        return f"{brief(shown) or match[1]}: {unknown_key(match[1], shown)}"
    if match := re.match(r"Multiple values for (\S+)\. ", text):
        return f"{match[1]} is given twice; choose one option with {match[1]}=<option>, without a +"
    return f"{brief(text)}\n{SEE_HELP}"


SEE_HELP = "python -m harness --help lists the groups, their options and every key"


# OmegaConf's reasons, and what they mean for somebody who types an override.
REASONS = (
    (r"could not be converted to Integer", "needs a whole number"),
    (r"could not be converted to Float", "needs a number"),
    (r"is not a valid bool|could not be converted to Boolean", "needs true or false"),
    (r"is not Optional|Incompatible value 'None'|NoneType is not a subclass", "cannot be null; give a value"),
    (r"is not a ListConfig|to ListConfig", "needs a list, such as [a,b]"),
    (r"Cannot convert '(?:list|dict)' to string", "needs one text; put quotes around a value with brackets"),
    (r"[Mm]issing mandatory value", "has no value; set it on the command line"),
    (r"does not support deletion", "cannot be deleted; set it to another value"),
    (r"Recursive interpolation|parent node", "refers to itself; name another setting inside ${...}"),
    (r"Interpolation key '(.*)' not found", r"refers to '\1', which is no setting; name another inside ${...}"),
    (r"raised while resolving interpolation: \"?(.*?)\"?$", r"\1"),
)


def unknown_key(key: str, override: str = "") -> str:
    """What to do about a name that no setting has, the nearest names included."""
    parent, _, leaf = key.rpartition(".")
    if get_origin(known_settings().get(parent)) is dict:
        value = re.search(rf"{re.escape(leaf)}['\"]?\s*[=:]\s*([^,}}]+)", override)
        return f"a new entry of {parent} needs a plus: +{key}={value[1] if value else '...'}"
    close = nearest_keys(key)
    remedy = f"did you mean {' or '.join(close)}?" if close else SEE_HELP
    return f"there is no setting {key}; {remedy}"


def no_option(group: str, option: str, among: Sequence[str] | None = None) -> str:
    """What to do about an option that a group lacks; ``among``: the options, where they are known already."""
    options = config_groups().get(group, ()) if among is None else among
    close = closest(option, options, 0.6)
    hint = f"did you mean {group}={close[0]}? " if close else ""
    choices = f"options: {', '.join(options)}" if options else "the group has no options"
    return f"{group}={brief(option)} does not exist; {hint}{choices}"


def omegaconf_message(error: OmegaConfBaseException, override: str = "") -> str:
    """OmegaConf's refusal as one sentence: the override, or else the key; then the reason."""
    key = str(getattr(error, "full_key", None) or "")
    what = brief(override) or key or "the configuration"
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return f"{what}: {unknown_key(key, override)}"
    reason = (getattr(error, "msg", None) or str(error)).splitlines()[0]
    if match := re.search(r"Invalid type assigned: \w+ is not a subclass of [A-Z]", reason):
        inside = [name for name in known_settings() if name.startswith(f"{key}.")]
        return f"{what}: {key} is a group of settings" + (f"; set one of them, e.g. {inside[0]}=..." if inside else "")
    for pattern, meaning in REASONS:
        if match := re.search(pattern, reason):
            return (
                f"{what}: {key} {match.expand(meaning)}" if key not in ("", what) else f"{what} {match.expand(meaning)}"
            )
    return f"{what}: {reason}"


def misused_groups(overrides: Iterable[str]) -> list[str]:
    """Faults of overrides that Hydra accepts, or crashes on, where a group takes one option.

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
            faults.append(f"{brief(override)} merges its options into one run; {each} makes one run of each")
        elif re.fullmatch(r"|null|true|false|[-+.\d]+|\{.*", value, re.IGNORECASE):
            faults.append(f"{brief(override)} names no option; options: {', '.join(options)}")
    return faults
