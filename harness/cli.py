"""The command line around Hydra: schema, free text, exit codes, and errors that read as one message."""

import functools
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from harness.config.compose import composing_once, register_schema
from harness.config.free_text import quote_free_text
from harness.config.messages import TRACEBACK, explain, is_input_fault, misused_groups, nested_sweeps
from harness.errors import RankFailedAlone, RunFault, raise_together
from harness.record.redact import redactor
from harness.runtime import signals
from harness.runtime.notices import quiet_libraries
from harness.runtime.terminal import PrintableFormatter, printable, sturdy_streams
from harness.shipped import VERSION, shipped_folder

COMPOSING = 50_000  # new objects between two collections of garbage: composing makes many, and leaves few behind


class Stopped(BaseException):
    """Carries a single run's error through Hydra, which would print its own text for an ``Exception``."""


def start(task: Callable[..., Any]) -> None:
    """Run ``task`` under Hydra.

    Exits with 0 if everything finished, 1 if a run failed, 2 on wrong input, 130 on Ctrl-C and 143 on SIGTERM.
    """
    with sturdy_streams():
        _start(task)


def _start(task: Callable[..., Any]) -> None:
    usual = gc.get_threshold()
    gc.set_threshold(COMPOSING, *usual[1:])
    try:
        _run_under_hydra(task, usual)
    finally:
        gc.set_threshold(*usual)


def _run_under_hydra(task: Callable[..., Any], usual: tuple[int, int, int]) -> None:
    """Run ``task``.

    Args:
        usual: thresholds of the garbage collector once the task begins.
    """
    import hydra

    if "--version" in sys.argv[1:]:  # Hydra would print its own
        print(f"peft-harness {VERSION}")
        return
    wants_traceback = os.environ.get(TRACEBACK) == "1" or os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Makes Hydra pass errors on instead of printing them itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _log_to_console()
    sys.argv[1:] = quote_free_text(sys.argv[1:])
    started: list[bool] = []

    @functools.wraps(task)
    def guarded(composed: Any) -> Any:
        started.append(True)
        gc.set_threshold(*usual)
        try:
            return task(composed)
        except Exception as error:
            if _in_sweep():  # the launcher continues with the next run
                raise
            raise Stopped from error

    command = hydra.main(version_base="1.3", config_path=str(shipped_folder("conf")), config_name="config")(guarded)
    try:
        register_schema()
        raise_together([*misused_groups(sys.argv[1:]), *nested_sweeps(sys.argv[1:])])
        with signals.listening(), composing_once():
            command()
    except KeyboardInterrupt as stop:
        sys.stderr.write("stopped; run the same command again to resume\n")
        sys.exit(stop.exit_code if isinstance(stop, signals.Interrupted) else 130)
    except (Exception, Stopped, RankFailedAlone) as caught:
        error = caught.__cause__ if isinstance(caught, Stopped | RankFailedAlone) and caught.__cause__ else caught
        if wants_traceback:
            _say("".join(traceback.format_exception(error)).rstrip("\n"))
        _say(explain(error))
        # Before the first run starts, only the command can be wrong.
        wrong = is_input_fault(error) or not (started or isinstance(error, RunFault))
        sys.exit(2 if wrong else 1)


def _say(text: str) -> None:
    sys.stderr.write(printable(redactor()(text)) + "\n")


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


class _ConsoleFormatter(PrintableFormatter):
    """Lines without control characters and without secrets: a console may be a file that others read."""

    def __init__(self, form: str) -> None:
        super().__init__(form)
        self._redact = redactor()

    def format(self, record: logging.LogRecord) -> str:
        """The line for the console."""
        return self._redact(super().format(record))


def _log_to_console() -> None:
    """Show the harness's messages on the console, and of the libraries only their warnings and errors."""
    quiet_libraries()
    handler = logging.StreamHandler()
    handler.setFormatter(_ConsoleFormatter("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
