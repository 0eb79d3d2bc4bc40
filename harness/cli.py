"""The command line around Hydra: schema, help, and errors that read as one message."""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from harness.config.compose import register_schema
from harness.config.messages import TRACEBACK, explain, is_input_fault, misused_groups
from harness.errors import RankFailedAlone, RunFault, raise_together
from harness.runtime import signals
from harness.runtime.notices import quiet_libraries
from harness.shipped import shipped_folder


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
    sys.argv[1:] = quote_free_text(sys.argv[1:])
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

    command = hydra.main(version_base="1.3", config_path=str(shipped_folder("conf")), config_name="config")(guarded)
    try:
        raise_together(misused_groups(sys.argv[1:]))
        with signals.listening():
            command()
    except KeyboardInterrupt as stop:
        sys.stderr.write("stopped; the same command goes on from where it was\n")
        sys.exit(stop.exit_code if isinstance(stop, signals.Interrupted) else 130)
    except (Exception, Stopped, RankFailedAlone) as caught:
        error = caught.__cause__ if isinstance(caught, Stopped | RankFailedAlone) and caught.__cause__ else caught
        if wants_traceback:
            traceback.print_exception(error)
        sys.stderr.write(explain(error) + "\n")
        # Before any run began, only the command can be at fault.
        wrong = is_input_fault(error) or not (began or isinstance(error, RunFault))
        sys.exit(2 if wrong else 1)


def quote_free_text(arguments: list[str]) -> list[str]:
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


def _say_what_happens() -> None:
    """Notes of the harness go to the console; libraries speak up only when something is wrong."""
    import logging

    quiet_libraries()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
