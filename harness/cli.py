"""The command line around Hydra: schema, free text, exit codes, and errors that read as one message."""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from harness.config.compose import register_schema
from harness.config.messages import TRACEBACK, explain, is_input_fault, misused_groups, nested_sweeps
from harness.errors import RankFailedAlone, RunFault, raise_together
from harness.runtime import signals
from harness.runtime.notices import quiet_libraries
from harness.runtime.terminal import printable
from harness.shipped import shipped_folder


class Stopped(BaseException):
    """Carries a single run's error through Hydra, which would print its own text for an ``Exception``."""


def start(task: Callable[..., Any]) -> None:
    """Run ``task`` under Hydra.

    Exits with 0 if everything finished, 1 if a run failed, 2 on wrong input, 130 on Ctrl-C and 143 on SIGTERM.
    """
    import hydra

    wants_traceback = os.environ.get(TRACEBACK) == "1" or os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Makes Hydra pass errors on instead of printing them itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schema()
    _log_to_console()
    sys.argv[1:] = quote_free_text(sys.argv[1:])
    started: list[bool] = []

    @functools.wraps(task)
    def guarded(composed: Any) -> Any:
        started.append(True)
        try:
            return task(composed)
        except Exception as error:
            if _in_sweep():  # the launcher continues with the next run
                raise
            raise Stopped from error

    command = hydra.main(version_base="1.3", config_path=str(shipped_folder("conf")), config_name="config")(guarded)
    try:
        raise_together([*misused_groups(sys.argv[1:]), *nested_sweeps(sys.argv[1:])])
        with signals.listening():
            command()
    except KeyboardInterrupt as stop:
        sys.stderr.write("stopped; run the same command again to resume\n")
        sys.exit(stop.exit_code if isinstance(stop, signals.Interrupted) else 130)
    except (Exception, Stopped, RankFailedAlone) as caught:
        error = caught.__cause__ if isinstance(caught, Stopped | RankFailedAlone) and caught.__cause__ else caught
        if wants_traceback:
            traceback.print_exception(error)
        sys.stderr.write(printable(explain(error)) + "\n")
        # Before the first run starts, only the command can be wrong.
        wrong = is_input_fault(error) or not (started or isinstance(error, RunFault))
        sys.exit(2 if wrong else 1)


def quote_free_text(arguments: list[str]) -> list[str]:
    """The command as Hydra reads it: ``-m`` before the overrides, and free text in quotes.

    Hydra refuses a flag after an override, reads ``run=39e5`` as a number, and cannot read ``prompt=a, b``.
    """
    flags = [each for each in arguments if each in ("-m", "--multirun")]
    rest = [each for each in arguments if each not in flags]
    return flags[:1] + [_quoted(each) for each in rest]


def _quoted(argument: str) -> str:
    """``run``, ``prompt`` and ``input`` are text as typed, never a number, a list or an interpolation."""
    key, equals, value = argument.partition("=")
    if key not in ("run", "prompt", "input") or not equals or value == "null" or value[:1] in ("'", '"'):
        return argument
    # Double the backslashes before a quote, where Hydra halves them, and add one before ${, which OmegaConf drops.
    escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ("\\" + match[2] if match[2] else ""), value)
    return f'{key}="{escaped.replace("${", chr(92) + "${")}"'


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


def _log_to_console() -> None:
    """Show the harness's messages on the console, and of the libraries only their warnings and errors."""
    import logging

    class Printable(logging.Formatter):
        """Messages may quote rows and names of files."""

        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    quiet_libraries()
    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
