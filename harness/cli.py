"""The command line around Hydra: schema, help, and errors that read as one message."""

import errno
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness import keys, schema, shipped, stops
from harness.errors import HarnessError, Parted, RunFault, raise_together

if TYPE_CHECKING:
    from hydra.errors import HydraException

TRACEBACK = "HARNESS_TRACEBACK"  # environment variable: 1 shows where an error came from


class Stopped(BaseException):
    """A single run's error on its way out: Hydra would announce an ``Exception`` with a text of its own."""


def start(task: Callable[..., Any]) -> None:
    """Run ``task`` under Hydra.

    Exits with 0 when all went well, 1 when a run failed, 2 on wrong input, 130 on Ctrl-C and 143 on SIGTERM.
    """
    import hydra

    wants_traceback = os.environ.get(TRACEBACK) == "1" or os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then passes errors on instead of printing its own account of them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schema()
    _say_what_happens()
    sys.argv[1:] = friendly(sys.argv[1:])
    began: list[bool] = []

    @functools.wraps(task)
    def guarded(composed: Any) -> Any:
        began.append(True)
        try:
            return task(composed)
        except Exception as error:
            if _in_sweep():  # the launcher goes on with the next run
                raise
            raise Stopped from error

    command = hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name="config")(guarded)
    try:
        raise_together(keys.misused_groups(sys.argv[1:]))
        with stops.listening():
            command()
    except KeyboardInterrupt as stop:
        sys.stderr.write("stopped; the same command goes on from where it was\n")
        sys.exit(stop.exit_code if isinstance(stop, stops.Interrupted) else 130)
    except (Exception, Stopped, Parted) as caught:
        error = caught.__cause__ if isinstance(caught, Stopped | Parted) and caught.__cause__ else caught
        if wants_traceback:
            traceback.print_exception(error)
        sys.stderr.write(explain(error) + "\n")
        # Before any run began, only the command can be at fault.
        wrong = is_input_fault(error) or not (began or isinstance(error, RunFault))
        sys.exit(2 if wrong else 1)


def friendly(arguments: list[str]) -> list[str]:
    """The command as Hydra takes it: ``-m`` before the overrides, and text in quotes of its own.

    Hydra refuses a flag after an override, reads ``run=39e5`` as a number, and ``prompt=a, b`` not at all.
    """
    flags = [each for each in arguments if each in ("-m", "--multirun")]
    rest = [each for each in arguments if each not in flags]
    return flags[:1] + [_quoted(each) for each in rest]


def _quoted(argument: str) -> str:
    """``run``, ``prompt`` and ``input`` hold text as it is: no number, no list, no interpolation."""
    key, equals, value = argument.partition("=")
    if key not in ("run", "prompt", "input") or not equals or value == "null" or value[:1] in ("'", '"'):
        return argument
    # Backslashes count only before a quote, where Hydra halves them, and before ${, where OmegaConf does.
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ("\\" + found[2] if found[2] else ""), value)
    return f'{key}="{escaped.replace("${", chr(92) + "${")}"'


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


def register_schema() -> None:
    """Let Hydra compose into typed nodes, and take launchers and sweepers from ``conf/`` alone."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the plugins' own presets
    store = ConfigStore.instance()
    for preset in (shipped("conf") / "hydra").glob("*/*.yaml"):
        # Hydra would hold our file of the same name to the plugin's schema.
        store.repo["hydra"].get(preset.parent.name, {}).pop(preset.name, None)
    store.store(name="schema", node=schema.Config)


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
        return f"error: {_hydra_text(error)}"
    if isinstance(error, OmegaConfBaseException):
        return f"error: {keys.refused(error)}"
    if isinstance(error, OSError):
        return f"error: {error.filename or ''}: {error.strerror or error}".replace("error: : ", "error: ")
    return f"error: {type(error).__name__}: {keys.brief(str(error))}\n{TRACEBACK}=1 shows where it came from"


def _hydra_text(error: "HydraException") -> str:
    """Hydra's complaint in the harness's words; its advice (``+key=value``) would only move the fault."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return keys.no_option(group, option, error.options) if group else text
    if isinstance(error, OverrideParseException):
        return (
            f"{keys.brief(error.override)} cannot be read as key=value; a value with brackets, commas, quotes or "
            f"spaces needs quotes of its own: 'key=\"a, b\"'"
        )
    in_file = re.match(r"In '(.*?)': \w+ raised while composing config", text)
    if in_file and isinstance(error.__context__, OmegaConfBaseException):
        return keys.refused(error.__context__, f"{in_file[1]}.yaml")
    override = re.search(r"(?:use \+|merging override )(.*)", text, re.DOTALL)
    shown = override[1] if override else ""
    if isinstance(error.__cause__, OmegaConfBaseException):
        return keys.refused(error.__cause__, shown)
    if match := re.match(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:$| requires|\n)", text, re.DOTALL
    ):
        value = match[1].partition("=")[2]
        return (
            f"{keys.brief(match[1])} has several values: add -m to run each, or write a list as [{keys.brief(value)}]"
        )
    if match := re.match(r"Could not append to config. An item is already at '(.*?)'", text):
        return f"+{match[1]}: {match[1]} exists; leave out the +"
    if match := re.match(r"Could not override '(.*?)@(.*?)'", text):
        return f"{keys.brief(shown)}: no option of {match[1]} stands at {match[2]}; leave out @{match[2]}"
    if match := re.match(r"Could not override '(.*?)'", text):
        return f"{keys.brief(shown) or match[1]}: {keys.unknown(match[1], shown)}"
    if match := re.match(r"Multiple values for (\S+)\. ", text):
        return f"{match[1]} is given twice; choose one option with {match[1]}=<option>, without a +"
    return f"{keys.brief(text)}\n{keys.SEE_HELP}"


def _say_what_happens() -> None:
    """Notes of the harness go to the console; libraries speak up only when something is wrong."""
    import logging
    import warnings

    # Notices for the developers of other packages; nobody who runs a comparison can act on them.
    warnings.simplefilter("ignore", FutureWarning)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
