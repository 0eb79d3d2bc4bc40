"""The command line around Hydra: schema, help, and errors that read as one message."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from harness import schema, shipped
from harness.errors import HarnessError

TRACEBACK = "HARNESS_TRACEBACK"  # environment variable: 1 shows where an error came from


def start(task: Callable[..., Any]) -> None:
    """Run ``task`` under Hydra; exit with 0 when all went well, 1 when a run failed, 2 on wrong input."""
    import hydra

    wants_traceback = os.environ.get(TRACEBACK) == "1" or os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then passes errors on instead of printing its own account of them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schema()
    _say_what_happens()
    command = hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name="config")(task)
    try:
        command()
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command again to go on")
    except Exception as error:
        if wants_traceback:
            traceback.print_exc()
        sys.stderr.write(explain(error) + "\n")
        sys.exit(2 if is_input_fault(error) else 1)


def register_schema() -> None:
    """Let Hydra compose into typed nodes, and take launcher presets from ``conf/`` alone."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the plugins' own presets
    store = ConfigStore.instance()
    for preset in (shipped("conf") / "hydra" / "launcher").glob("*.yaml"):
        # Hydra would hold our file of the same name to the plugin's schema.
        store.repo["hydra"]["launcher"].pop(preset.name, None)
    store.store(name="schema", node=schema.Config)


def is_input_fault(error: BaseException) -> bool:
    """Whether the user's input, not the run, is to blame."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from harness.errors import RunFault

    wrong = (HarnessError, HydraException, OmegaConfBaseException, OSError)
    return isinstance(error, wrong) and not isinstance(error, RunFault)


def explain(error: BaseException) -> str:
    """One readable message: the cause, without Hydra's frame around it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HarnessError):
        return f"error: {error}"
    if isinstance(error, OSError):
        return f"error: {error.filename or ''}: {error.strerror or error}".replace("error: : ", "error: ")
    parts = [str(error)]
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        parts.append(str(error.__cause__))
    text = "\n".join(part for part in dict.fromkeys(parts) if part)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return f"error: {text}\npython -m harness --help shows the groups, their options and every key"
    return f"error: {type(error).__name__}: {text}\n{TRACEBACK}=1 shows where it came from"


def _say_what_happens() -> None:
    """Notes of the harness go to the console; libraries speak up only when something is wrong."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
