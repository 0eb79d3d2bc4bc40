"""What Hydra and OmegaConf report, in the harness's words: the override first, the remedy last.

Some facts stand only in the English text of these libraries. ``ROWS`` holds every text that is read, what is said
instead, and an override that raises it, so that a test notices when an upgrade rewords one.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from omegaconf.errors import ConfigAttributeError, ConfigKeyError, GrammarParseError, OmegaConfBaseException

from harness.config.names import SEE_HELP, config_groups, known_settings, no_option, unknown_key
from harness.errors import brief

if TYPE_CHECKING:
    from hydra.errors import HydraException

HYDRA, OMEGACONF = "Hydra", "OmegaConf"


@dataclass(frozen=True)
class Complaint:
    """A text that a row matched, and what it is about."""

    groups: tuple[str, ...]  # the whole match, then the groups of the pattern
    override: str = ""  # as typed, or the file; "" if the library does not say
    key: str = ""
    cause: OmegaConfBaseException | None = None

    @property
    def subject(self) -> str:
        """``lora.r=abc: lora.r``: the override and the key, each only once."""
        what = self.override or self.key or "the configuration"
        return f"{what}: {self.key}" if self.key not in ("", what) else what


@dataclass(frozen=True)
class Row:
    """One text of a library and the message that replaces it.

    A message that is a string may contain ``{subject}``, ``{override}``, ``{key}`` and the groups ``{0}``, ``{1}``, ...
    """

    library: str
    pattern: str  # searched for in the text; the first row that matches counts
    message: str | Callable[[Complaint], str]
    example: str  # an override that makes the library raise it

    def applied(self, complaint: Complaint) -> str:
        """The message for this complaint."""
        if callable(self.message):
            return self.message(complaint)
        shown = {"subject": complaint.subject, "override": brief(complaint.override), "key": complaint.key}
        return self.message.format(*complaint.groups, **shown)


def hydra_message(error: "HydraException") -> str:
    """Hydra's complaint as one sentence. Hydra's own advice (``+key=value``) would only move the mistake."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return no_option(group, option, error.options) if group else text
    if isinstance(error, OverrideParseException):
        return f"{brief(error.override)} cannot be read as key=value; {_advice_on(str(error.override))}"
    cause = error.__cause__ or error.__context__
    row, groups = matching_row(HYDRA, text)
    if row:
        return row.applied(Complaint(groups, cause=cause if isinstance(cause, OmegaConfBaseException) else None))
    return f"{brief(text)}\n{SEE_HELP}"


def _advice_on(override: str) -> str:
    """What to type instead of an override that Hydra's grammar refuses."""
    key, _, value = override.partition("=")
    if "'" in key or '"' in key:
        bare = key.replace("'", "").replace('"', "")
        return f"leave out the quotes around the name: {bare}={brief(value)}"
    if unquoted := _without_quoted_keys(override):
        return f"names inside {{}} take no quotes; write '{unquoted}'"
    if value.startswith("{"):
        return (
            "in braces, write name:value with a backslash before each of ()[]{}:=, in a name; names with other signs "
            "need a file of --config-dir"
        )
    return "a value with brackets, commas, quotes or spaces needs its own quotes: 'key=\"a, b\"'"


def _without_quoted_keys(override: str) -> str | None:
    """The override as Hydra can read it, if it only has quotes around the names inside ``{}``; else None."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    def bare(special: str, match: re.Match[str]) -> str:
        # What means something to Hydra's grammar is text behind a backslash.
        return match[1] + re.sub(rf"[{special}()\[\]{{}}:=, ]", lambda each: f"\\{each[0]}", match[3]) + ":"

    quoted = re.compile(r"([{,]\s*)([\"'])(.*?)\2\s*:")
    wanted = [name for _, _, name in quoted.findall(override)]
    for special in ("", "\\\\"):
        changed = quoted.sub(partial(bare, special), override)
        if str(known_settings().get(changed.partition("=")[0])).startswith("dict["):
            changed = f"+{changed}"  # a new entry
        with suppress(HydraException):
            found = OverridesParser.create().parse_override(changed)._value
            if wanted and isinstance(found, dict) and list(map(str, found)) == wanted:
                return changed
    return None


def omegaconf_message(error: OmegaConfBaseException, override: str = "") -> str:
    """OmegaConf's refusal as one sentence: the override (or file) if known, the key, and the reason."""
    key = str(getattr(error, "full_key", None) or "")
    subject = Complaint((), brief(override), key).subject
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return f"{brief(override) or key}: {unknown_key(key, override)}"
    if isinstance(error, GrammarParseError):
        return f"{subject} contains a ${{...}} that cannot be read; write ${{key}}, or quote the text: '\\${{'"
    reason = first_line(error)
    row, groups = matching_row(OMEGACONF, reason)
    return row.applied(Complaint(groups, brief(override), key)) if row else f"{subject}: {reason}"


def first_line(error: OmegaConfBaseException) -> str:
    """The text without the lines that name OmegaConf's own types."""
    return ((getattr(error, "msg", None) or str(error)).splitlines() or [type(error).__name__])[0]


def matching_row(library: str, text: str) -> tuple[Row | None, tuple[str, ...]]:
    """The first row for this text, with the whole match and its groups."""
    for row in ROWS:
        if row.library == library and (match := re.search(row.pattern, text, re.DOTALL)):
            return row, (match[0], *match.groups(default=""))
    return None, ()


# --- messages that are looked up ---------------------------------------------------------------------------


def _of_cause(it: Complaint) -> str:
    """The message of the error that Hydra wraps; Hydra says which override, or which file, caused it."""
    return omegaconf_message(it.cause, it.groups[1]) if it.cause else f"{brief(it.groups[0])}\n{SEE_HELP}"


def _not_overridden(it: Complaint) -> str:
    _, key, override = it.groups
    return omegaconf_message(it.cause, override) if it.cause else f"{brief(override) or key}: {unknown_key(key)}"


def _several_values(it: Complaint) -> str:
    _, override = it.groups
    value = override.partition("=")[2]
    return f"{brief(override)} has several values: add -m to run each, or write a list as [{brief(value)}]"


def _no_group(it: Complaint) -> str:
    _, override, group = it.groups
    return f"{brief(override)}: there is no group {group}; groups: {', '.join(config_groups())}"


def _node(it: Complaint) -> str:
    """What to set when a whole node was given a value of the wrong shape."""
    kind = known_settings().get(it.key)
    if "list[" in str(kind):
        return f"{it.subject} needs a list, such as [a,b]"
    inside = [name for name in known_settings() if name.startswith(f"{it.key}.")]
    example = f"; set one of them, e.g. {inside[0]}=..." if inside else ""
    if str(kind).startswith("dict["):
        example = f"; add an entry with +{it.key}.<name>=<value>"
    return f"{it.subject} is a group of settings{example}"


def _choices(it: Complaint) -> str:
    """The names of an enumeration."""
    kind: Any = known_settings().get(it.key)
    kinds = [each for each in (kind, *get_args(kind)) if isinstance(each, type) and issubclass(each, Enum)]
    return f"{it.subject} must be one of {', '.join(kinds[0].__members__) if kinds else it.groups[1]}"


# --- the table ---------------------------------------------------------------------------------------------

_NO_NULL = "{subject} cannot be null; give a value"
_NO_DELETION = "{subject} cannot be deleted; set it to another value"
_NO_LIST = "{subject} needs a list, such as [a,b]"

ROWS: tuple[Row, ...] = (
    Row(HYDRA, r"^In '(.*?)': \w+ raised while composing config",
        lambda it: _of_cause(Complaint((it.groups[0], f"{it.groups[1]}.yaml"), cause=it.cause)), "+model@base=tiny"),
    Row(HYDRA, r"^Error merging override (.*)", _of_cause, "lora.r=abc"),
    Row(HYDRA, r"^Ambiguous value for argument '(.*?)'\n", _several_values, "lora.r=4,8"),
    Row(HYDRA, r"^Sweep parameters '(.*)' requires --multirun", _several_values, "lora.r=range(4,8)"),
    Row(HYDRA, r"^Could not append to config\. An item is already at '(.*?)'",
        "+{1}: {1} already exists; remove the +", "+lora.r=4"),
    Row(HYDRA, r"^Could not override '([^']*?)@([^']*)'\..*use \+(.*)",
        lambda it: f"{brief(it.groups[3])}: {it.groups[1]} has no package {it.groups[2]}; remove @{it.groups[2]}",
        "model@base=tiny"),
    Row(HYDRA, r"^Could not override '(.*?)'(?:.*use \+(.*))?", _not_overridden, "sed=1"),
    Row(HYDRA, r"^Could not delete from config\. '(.*?)' does not exist",
        lambda it: f"~{it.groups[1]}: {unknown_key(it.groups[1])}", "~lora.rank"),
    Row(HYDRA, r"^Could not delete from config\. The value of '(.*?)' is (.*) and not (.*)\.",
        "~{1}={3}: {1} cannot be deleted; set it to another value", "~lora.r=4"),
    Row(HYDRA, r"^Could not delete '([^=']*)(.*?)'",
        "~{1}{2} is not chosen; choose an option with {1}=<option>", "~peft=ia3"),
    Row(HYDRA, r"^Multiple values for (\S+)\. ",
        "{1} is given twice; choose one option with {1}=<option>, without a +", "+peft=ia3"),
    Row(HYDRA, r"^force-add of config groups is not supported: '\+*(.*)'",
        "++{1}: {1} chooses an option; remove the ++", "++peft=ia3"),
    Row(HYDRA, r"^You must specify '(.*?)'", lambda it: no_option(it.groups[1], "???"), "peft=???"),
    Row(HYDRA, r"^Override (.*?) looks like a config group override, but config group '(.*?)'",
        _no_group, "nothing@x=1"),
    Row(OMEGACONF, r"could not be converted to Integer", "{subject} needs a whole number", "lora.r=1.5"),
    Row(OMEGACONF, r"could not be converted to Float", "{subject} needs a number", "trainer.epochs=many"),
    Row(OMEGACONF, r"is not a valid bool", "{subject} needs true or false", "trainer.keep_best=perhaps"),
    Row(OMEGACONF, r"Invalid value '.*', expected one of \[(.*)\]", _choices, "trainer.schedule=warm"),
    Row(OMEGACONF, r"is not a valid input for <enum '(\w+)'>", _choices, "trainer.schedule=[linear]"),
    Row(OMEGACONF, r"is not Optional", _NO_NULL, "trainer.epochs=null"),
    Row(OMEGACONF, r"Incompatible value 'None'", _NO_NULL, "trainer={epochs: null}"),
    Row(OMEGACONF, r"NoneType is not a subclass", _NO_NULL, "scoring.metrics=[null]"),
    Row(OMEGACONF, r"is not a ListConfig", _NO_LIST, "scoring.metrics=bleu"),
    Row(OMEGACONF, r"list index out of range", "{subject}: the list is shorter; give the whole list, such as [a,b]",
        "data.metrics.9=bleu"),
    Row(OMEGACONF, r"Cannot merge DictConfig with ListConfig", _node, "data.limits=[1]"),
    Row(OMEGACONF, r"Cannot assign \w+ to Dict", _node, "lora.rank_pattern=3"),
    Row(OMEGACONF, r"Invalid type assigned: \w+ is not a subclass of [A-Z]", _node, "data.limits=3"),
    Row(OMEGACONF, r"Key (.*) \(\w+\) is incompatible with \(str\)",
        "{subject}: the name {1} must be text; put it in quotes", "lora.rank_pattern={1: 2}"),
    Row(OMEGACONF, r"Cannot convert '(?:list|dict)' to string",
        "{subject} needs one text; put quotes around a value with brackets", "model.path=[a]"),
    Row(OMEGACONF, r"has missing mandatory value",
        "{subject} has no value; set it on the command line", "model.packages=[{member: a}]"),
    Row(OMEGACONF, r"does not support deletion", _NO_DELETION, "~lora.r"),
    Row(OMEGACONF, r"Recursive interpolation", "{subject} refers to itself; name another setting inside ${{...}}",
        "seed=${seed}"),
    Row(OMEGACONF, r"to parent node",
        "{subject} refers to the group that contains it; name another setting inside ${{...}}",
        "data.limits.train=${data}"),
    Row(OMEGACONF, r"Interpolation key '(.*)' not found",
        "{subject} refers to '{1}', which is not a setting; name another inside ${{...}}", "model.path=${oops}"),
    Row(OMEGACONF, r"Unsupported interpolation type (.*)",
        "{subject}: ${{{1}:...}} does not exist; use ${{key}} or ${{oc.env:NAME}}", "model.path=${nope:x}"),
    Row(OMEGACONF, r"raised while resolving interpolation: \"?(.*?)\"?$",
        "{subject}: {1}; set the variable, or write the value", "model.path=${oc.env:NO_SUCH_VARIABLE}"),
)  # fmt: skip
