"""Import paths such as ``my_pkg.metrics:politeness``, and the objects that they name.

A setting that takes the name of something built in (a metric, a template, a row format, a source of models, a tracker)
also takes an import path. What it names is imported before anything is trained, so that a mistake shows at once.
"""

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, brief, first_line

_NAME = r"[^\W\d]\w*"
IMPORT_PATH = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")

PROJECT = "PEFT_HARNESS_PROJECT"  # environment variable: the folder that the command was started in, for its workers


def is_import_path(value: Any) -> bool:
    """Whether a setting names code: ``package.module:name``."""
    return isinstance(value, str) and type(value) is str and IMPORT_PATH.fullmatch(value) is not None


def project_folder() -> Path:
    """The folder that the command was started in, also in a worker that was started elsewhere."""
    here = Path.cwd()
    given = os.environ.get(PROJECT)
    return Path(given) if given and not (here / "pyproject.toml").is_file() else here


def import_from(folder: Path) -> None:
    """Let modules be imported from a folder, as ``python -m`` does from the working folder (not with ``python -P``)."""
    if not sys.flags.safe_path and str(folder) not in sys.path and ("" not in sys.path or folder != Path.cwd()):
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()


def begin(folder: Path) -> None:
    """Make a folder the one whose modules can be imported, here and in the workers that this process starts."""
    os.environ[PROJECT] = str(folder)
    import_from(folder)


def load(key: str, path: str) -> Any:
    """The object that an import path names; ``key`` is the setting that holds it.

    Raises:
        ConfigFault: there is no such module or name, or importing it fails.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigFault(
                f"{key}={path}: there is no module {error.name}; install its package, or start the command in the "
                f"folder that holds it ({_where()})"
            ) from error
        raise ConfigFault(
            f"{key}={path}: {module_name} imports {error.name}, which is not installed; install it"
        ) from error
    except Exception as error:  # whatever a module of others raises
        raise ConfigFault(f"{key}={path}: importing {module_name} fails ({first_line(error)}); fix it") from error
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        remedy = f"did you mean {module_name}:{close[0]}?" if close else "define it there, or correct the name"
        raise ConfigFault(f"{key}={path}: {module_name} has no {name}; {remedy}")
    return getattr(module, name)


def _where() -> str:
    if sys.flags.safe_path:
        return "PYTHONSAFEPATH keeps the working folder from being searched; add it to PYTHONPATH"
    return f"this one is {Path.cwd()}"


def load_fault(key: str, path: str) -> str | None:
    """Why an import path cannot be used; None if it can be."""
    try:
        load(key, path)
    except ConfigFault as fault:
        return str(fault)
    return None


def call_faults(key: str, path: str, function: Any, given: Iterable[str], first: Iterable[str]) -> Iterator[str]:
    """Why a function cannot be called with these keywords.

    Args:
        given: every keyword that it may have.
        first: those of them that it must have.
    """
    if not callable(function):
        yield f"{key}={path} is a {type(function).__name__}, not a function; name a function"
        return
    parameters = signature(function)
    if parameters is None:
        return
    first, given = tuple(first), tuple(given)
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    named = {
        name: each for name, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }
    positional = [name for name, each in parameters.items() if each.kind is each.POSITIONAL_ONLY]
    form = f"{path.partition(':')[2]}({', '.join(first)}, ...)"
    lacking = [name for name in first if name not in named and not open_ended]
    if positional or lacking:
        yield (
            f"{key}={path} takes ({', '.join(parameters)}), and would be called with the keywords {', '.join(first)}; "
            f"define it as {form}"
        )
        return
    unknown = [name for name, each in named.items() if name not in given and each.default is each.empty]
    if unknown:
        yield (
            f"{key}={path} takes {', '.join(unknown)}, which is not known here; it may take {', '.join(given)}, or "
            "**columns for all of them"
        )


def signature(function: Callable[..., Any]) -> "dict[str, inspect.Parameter] | None":
    """Parameters of a function by name; None if Python cannot tell them."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def wanted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords that the function takes."""
    parameters = signature(function)
    if parameters is None or any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return given
    return {name: value for name, value in given.items() if name in parameters}


def shown(value: Any) -> str:
    """What others returned, for a message."""
    return f"{type(value).__name__} {brief(repr(value))}"
