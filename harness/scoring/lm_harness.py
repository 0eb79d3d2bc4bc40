"""Tasks of EleutherAI's lm-evaluation-harness on a model that is loaded: the base, or the tuned one.

Its package ``lm-eval`` does everything: prompts, requests, metrics and standard errors. The model is passed as it is,
without merging its adapter, so that the figures are those of ``lm_eval --model_args pretrained=...,peft=...``. A score
is named ``lm_eval/<task>/<metric>``, with ``/<filter>`` where the task has filters, and is in the package's own unit.
"""

import contextlib
import copy
import hashlib
import logging
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.schema import LmEval
from harness.errors import DataFault, RunFault, first_line
from harness.runtime.notices import without_progress_bars
from harness.scoring.catalog import Score, learn

PACKAGE = "lm-eval"
INSTALL = "pip install 'peft-harness[lm-eval]'"
PREFIX = "lm_eval/"
KEPT = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better")  # of its results, in the record


@dataclass(frozen=True)
class Results:
    """What the tasks give for one model."""

    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)  # standard error of each value that has one
    signatures: dict[str, str] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()  # names of those values
    details: dict[str, Any] = field(default_factory=dict)  # everything, subtasks of groups included


def installed() -> bool:
    """Whether the package is there."""
    return find_spec("lm_eval") is not None


def task_faults(settings: LmEval) -> Iterator[str]:
    """Why these tasks cannot be run: no package, no such folder, no such task. Reads no rows."""
    if not settings.tasks:
        return
    if not all(settings.tasks):
        yield "scoring.lm_eval.tasks holds no name; name tasks or groups, such as scoring.lm_eval.tasks=[arc_easy]"
        return
    shown = f"scoring.lm_eval.tasks=[{','.join(settings.tasks)}]"
    if not installed():
        yield f"{shown} needs the package {PACKAGE}, which is not installed; {INSTALL}"
        return
    folder = _folder(settings)
    if folder is not None and not folder.is_dir():
        yield f"scoring.lm_eval.include_path={settings.include_path} is not a folder; name one with task files, or null"
        return
    known = _known(folder, defaults=False) if folder else frozenset()
    missing = [name for name in settings.tasks if name not in known]
    if missing:
        known |= _known(folder, defaults=True)
    for name in missing:
        if name not in known:
            near = get_close_matches(name, known, 3)
            hint = f"; perhaps {' or '.join(near)}" if near else ""
            yield (
                f"scoring.lm_eval.tasks holds {name}, which is neither a task of {PACKAGE} {version(PACKAGE)} nor in "
                f"scoring.lm_eval.include_path={settings.include_path}{hint}; `lm_eval ls tasks` lists them"
            )


def tasks_digest(settings: LmEval) -> str:
    """What a plan's fingerprint includes of the tasks: the package's version, and every file beside the user's own."""
    digest, folder = hashlib.sha256(), _folder(settings)
    for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else ():
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())  # type: ignore[arg-type]
            digest.update(path.read_bytes())
    return f"{version(PACKAGE) if installed() else 'missing'} {digest.hexdigest()[:16]}"


def require_tasks(settings: LmEval) -> None:
    """Load the tasks with their rows, so that one that cannot be read stops the run before it trains.

    Raises:
        DataFault: a task cannot be loaded.
    """
    if not settings.tasks:
        return
    with _quiet(), _own_random_state():
        try:
            _manager(_folder(settings), defaults=_needs_defaults(settings)).load(list(settings.tasks))
        except Exception as error:  # of the package, of datasets, or of a task's own code
            raise DataFault(
                f"scoring.lm_eval.tasks=[{','.join(settings.tasks)}] cannot be loaded ({first_line(error)}); check the "
                "task files and their data, or the network for tasks from the hub"
            ) from error


def run_tasks(model: Any, tokenizer: Any, settings: LmEval, *, one_by_one: bool) -> Results:
    """Results of the tasks on this model; empty without tasks. Random states of the process stay as they were.

    Args:
        one_by_one: score in batches of one row, for a model whose answers depend on padding.

    Raises:
        RunFault: the package fails.
    """
    if not settings.tasks:
        return Results()
    with _quiet(), _own_random_state():
        try:
            from lm_eval import simple_evaluate
            from lm_eval.models.huggingface import HFLM

            size = 1 if one_by_one else settings.batch_size
            # A copy, because the package sets a padding token.
            held = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=size)
            found: Any = simple_evaluate(
                model=held,
                tasks=list(settings.tasks),
                num_fewshot=settings.num_fewshot,
                limit=settings.limit,
                bootstrap_iters=settings.bootstrap_iters,
                apply_chat_template=settings.chat_template,
                task_manager=_manager(_folder(settings), defaults=_needs_defaults(settings)),
                log_samples=False,
            )
        except Exception as error:
            raise RunFault(
                f"scoring.lm_eval.tasks=[{','.join(settings.tasks)}] failed in {PACKAGE} ({first_line(error)}); lower "
                "scoring.lm_eval.batch_size if memory ran out, or leave the task out"
            ) from error
    return read_results(found, settings)


def task_scores(results: Results) -> dict[str, Score]:
    """Rows of the catalog for these values, which this process then knows."""
    scores = {
        name: Score(
            name=name,
            description=f"{name.removeprefix(PREFIX)}, by lm-evaluation-harness",
            direction="minimize" if name in results.lower_is_better else "maximize",
            unit="ratio",
            aggregation="corpus",
            decimals=4,
            needs="references",
        )
        for name in results.values
    }
    for score in scores.values():
        learn(score)
    return scores


def read_results(found: dict[str, Any], settings: LmEval) -> Results:
    """What ``simple_evaluate`` returned, by names of scores: of the named tasks and groups, not of their parts."""
    values: dict[str, float] = {}
    errors: dict[str, float] = {}
    signatures: dict[str, str] = {}
    lower: set[str] = set()
    for task in _shown(found, settings.tasks):
        figures = {**found["results"].get(task, {}), **found.get("groups", {}).get(task, {})}
        for key, value in figures.items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith("_stderr") or not _is_number(value):
                continue
            name = f"{PREFIX}{task}/{metric}" + ("" if filter_name == "none" else f"/{filter_name}")
            values[name] = float(value)
            error = figures.get(f"{metric}_stderr,{filter_name}")
            if error is not None and _is_number(error):
                errors[name] = float(error)
            if found.get("higher_is_better", {}).get(task, {}).get(metric) is False:
                lower.add(name)
            shots, edition = found.get("n-shot", {}).get(task), found.get("versions", {}).get(task)
            signatures[name] = f"{PACKAGE}:{version(PACKAGE)}|task:{edition}|shots:{shots}|filter:{filter_name}"
    return Results(values, errors, signatures, frozenset(lower), _plain({key: found.get(key, {}) for key in KEPT}))


def _shown(found: dict[str, Any], tasks: Sequence[str]) -> list[str]:
    """The tasks and groups by name; a tag has no figures of its own, and its tasks are shown instead."""
    known = {**found["results"], **found.get("groups", {})}
    named = [name for name in tasks if name in known]
    return named if len(named) == len(tasks) else [*named, *(name for name in known if name not in named)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """JSON values; numbers of numpy become Python's."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def _folder(settings: LmEval) -> Path | None:
    return Path(settings.include_path).expanduser().absolute() if settings.include_path else None


def _needs_defaults(settings: LmEval) -> bool:
    """Whether a task is one of the package's own, of which it has ten thousand to look through."""
    folder = _folder(settings)
    return folder is None or not set(settings.tasks) <= _known(folder, defaults=False)


def _known(folder: Path | None, defaults: bool) -> frozenset[str]:
    with _silent():
        return frozenset(_manager(folder, defaults).all_tasks)


@cache
def _manager(folder: Path | None, defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder) if folder else None, include_defaults=defaults)


def forget() -> None:
    """Look through the folders of tasks again: their files have changed."""
    _manager.cache_clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's log and the bars of transformers off the console; what matters is in the record."""
    with _silent(), without_progress_bars():
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _own_random_state() -> Iterator[None]:
    """The package seeds random, numpy and torch; afterwards all three are as before."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu:
            torch.cuda.set_rng_state_all(on_gpu)
