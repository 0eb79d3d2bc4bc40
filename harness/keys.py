"""Names of the settings: which exist, and which one a misspelt name may mean.

What Hydra and OmegaConf refuse is said here in the harness's own words: the override first, the remedy last.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_origin, get_type_hints

from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from harness import schema, shipped

SEE_HELP = "python -m harness --help lists the groups, their options and every key"
SHOWN_CHARACTERS = 200  # of an override: a pasted file must not fill the screen

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


@cache
def known() -> dict[str, Any]:
    """Type of every setting, and of the nodes that hold them, by dotted name in the schema's order."""
    return dict(_below(schema.Config, ""))


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Options of each configuration group that a command picks one of."""
    conf = shipped("conf")
    folders = [folder for folder in sorted(conf.iterdir()) if folder.is_dir() and folder.name != "hydra"]
    found = {folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml"))) for folder in folders}
    return {group: options for group, options in found.items() if options}


def unknown(key: str, override: str = "") -> str:
    """What to do about a name that no setting has, the nearest names included."""
    parent, _, leaf = key.rpartition(".")
    if get_origin(known().get(parent)) is dict:
        value = re.search(rf"{re.escape(leaf)}['\"]?\s*[=:]\s*([^,}}]+)", override)
        return f"a new entry of {parent} needs a plus: +{key}={value[1] if value else '...'}"
    close = nearest(key)
    remedy = f"did you mean {' or '.join(close)}?" if close else SEE_HELP
    return f"there is no setting {key}; {remedy}"


def nearest(key: str) -> list[str]:
    """Up to three settings or groups that a misspelt name may mean, the likeliest first."""
    parent, _, leaf = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in (*known(), *groups()) if name.rpartition(".")[0] == parent}
    close = [*_close(leaf, siblings, 0.6), *(name for name in siblings if name.endswith(f"_{leaf}"))]
    if close:
        return [siblings[name] for name in dict.fromkeys(close)][:3]
    same = [name for name in known() if name.rpartition(".")[2] == leaf][:3]
    close = _close(key, known(), 0.8) if parent or not same else []
    return close or same


def no_option(group: str, option: str, among: Sequence[str] | None = None) -> str:
    """What to do about an option that a group lacks; ``among``: the options, where they are known already."""
    options = groups().get(group, ()) if among is None else among
    close = _close(option, options, 0.6)
    hint = f"did you mean {group}={close[0]}? " if close else ""
    choices = f"options: {', '.join(options)}" if options else "the group has no options"
    return f"{group}={brief(option)} does not exist; {hint}{choices}"


def refused(error: OmegaConfBaseException, override: str = "") -> str:
    """OmegaConf's refusal as one sentence: the override, or else the key; then the reason."""
    key = str(getattr(error, "full_key", None) or "")
    what = brief(override) or key or "the configuration"
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return f"{what}: {unknown(key, override)}"
    reason = (getattr(error, "msg", None) or str(error)).splitlines()[0]
    if match := re.search(r"Invalid type assigned: \w+ is not a subclass of [A-Z]", reason):
        inside = [name for name in known() if name.startswith(f"{key}.")]
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
        options = groups().get(group)
        if not equals or options is None or group == "experiment":
            continue
        if value.startswith("["):
            each = f"-m {group}={value.strip('[]')}"
            faults.append(f"{brief(override)} merges its options into one run; {each} makes one run of each")
        elif re.fullmatch(r"|null|true|false|[-+.\d]+|\{.*", value, re.IGNORECASE):
            faults.append(f"{brief(override)} names no option; options: {', '.join(options)}")
    return faults


def brief(text: str) -> str:
    """The text, its middle left out where it is long."""
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def _close(name: str, among: Iterable[str], cutoff: float) -> list[str]:
    candidates: Sequence[str] = list(among)
    return difflib.get_close_matches(name, candidates, n=3, cutoff=cutoff)


def _below(node: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(node).items():
        yield prefix + name, kind
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _below(kind, f"{prefix}{name}.")
