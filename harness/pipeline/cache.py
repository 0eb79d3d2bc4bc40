"""What the runs of one process share: base model, tokenised rows, baseline. Each is made once.

One base model is held at a time. Runs work on forks of it; ``check_base`` proves after each run that its
weights are still what was loaded.
"""

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data import dataset
from harness.data.sources import locate_data
from harness.data.tokenize import held_out_rows, tokenize_splits
from harness.errors import DataFault
from harness.models import sources as model_sources
from harness.models.base import Base, fingerprint_weights, load_base
from harness.plan.spec import Plan, digest, plain
from harness.record.files import atomic_write_text
from harness.runtime import distributed
from harness.scoring.score import Scores, score

if TYPE_CHECKING:
    from harness.data.tokenize import TokenizedRow

log = logging.getLogger(__name__)


@dataclass
class LoadedBase:
    """A base model with the checksum of its weights as loaded."""

    base: Base
    checksum: str


@dataclass(frozen=True)
class PreparedRows:
    """Tokenised rows of all splits, the held-out text, and what the record says of them."""

    splits: "dict[str, list[TokenizedRow]]"
    held_out: "list[TokenizedRow]"
    rows: dict[str, int]
    refused: int
    cut: int
    notes: tuple[str, ...]
    seconds: float


_bases: dict[str, LoadedBase] = {}


_examples: dict[str, PreparedRows] = {}


_baselines: "dict[str, Scores]" = {}


def load_shared_base(plan: Plan) -> tuple[Base, float]:
    """The plan's base model, and the seconds that loading it took in this call (0 when it was at hand)."""
    key = _key(plan, plan.model)
    if key in _bases:
        return _bases[key].base, 0.0
    release_base()
    started = time.perf_counter()
    if distributed.processes() > 1:  # one converts and caches, the others find it done
        distributed.broadcast_from_main(lambda: str(model_sources.locate_weights(plan.model).folder))
    loaded = load_base(plan.model)
    _bases[key] = LoadedBase(loaded, fingerprint_weights(loaded.model))
    return loaded, time.perf_counter() - started


def base_checksum(plan: Plan) -> str:
    """Of the plan's base weights as loaded; ``base`` was called for it."""
    return _bases[_key(plan, plan.model)].checksum


def check_base(plan: Plan) -> str | None:
    """None where the base is bit for bit as loaded; else a note, and the base is loaded anew next time."""
    held = _bases.get(_key(plan, plan.model))
    if held is None or fingerprint_weights(held.base.model) == held.checksum:
        return None
    release_base()
    return "this run changed weights of the shared base model; it is loaded anew for the next run"


def release_base() -> None:
    """Let go of the base model, e.g. before another one is loaded."""
    _bases.clear()
    _examples.clear()


def prepared_rows(plan: Plan, loaded: Base) -> PreparedRows:
    """Tokenised rows of the plan's data for this tokenizer.

    Raises:
        DataFault: rows that cannot be used, or a split that is empty.
    """
    scoring = plan.scoring
    key = _key(plan, plan.data, plan.model, scoring.forgetting, scoring.forgetting_limit)
    held = _examples.get(key)
    if held is None:
        _examples[key] = found = _tokenise(plan, loaded)
    else:
        found = replace(held, seconds=0.0)
    _refuse_empty(found.splits, plan)  # each time: plans over the same rows may need other splits
    return found


def baseline(plan: Plan, loaded: Base, rows: PreparedRows, runs_dir: Path, code: str) -> "tuple[Scores, bool]":
    """Scores of the untouched base under the plan's protocol, and whether they were at hand.

    Kept in the process and in ``runs_dir/baselines``, once per model, data, protocol and code version.
    """
    # The checksum stands in the key because a package's weights are not the hub's.
    key = digest([plan.protocol, code, base_checksum(plan), str(loaded.device), str(loaded.dtype)])
    if key in _baselines:
        return _baselines[key], True
    path = runs_dir / "baselines" / f"{key}.json"
    found = _read_baseline(path, answers=len(rows.splits[plan.scoring.split]) if plan.scoring.metrics else 0)
    if found is None:
        found = score(
            loaded.model,
            loaded.tokenizer,
            rows.splits[plan.scoring.split],
            rows.held_out,
            plan.scoring,
            equal_lengths=False,
            seed=plan.seed,
        )
        atomic_write_text(path, json.dumps(vars(found), ensure_ascii=False, indent=1))
        _baselines[key] = found
        return found, False
    _baselines[key] = found
    return found, True


def _read_baseline(path: Path, answers: int) -> "Scores | None":
    """The kept baseline with so many answers, or None; a damaged file is as good as none."""
    try:
        found = Scores(**json.loads(path.read_text(encoding="utf-8")))
        if len(found.answers) != answers or not all(math.isfinite(value) for value in found.values.values()):
            raise ValueError(f"{len(found.answers)} answers where {answers} belong, or a score that is no number")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s is no baseline (%s); it is measured again", path, error)
        return None


def _tokenise(plan: Plan, loaded: Base) -> PreparedRows:
    started = time.perf_counter()
    read = dataset.read_splits(plan.data)
    tokenised = tokenize_splits(read, plan.data, loaded.tokenizer)
    notes = []
    if read.duplicates_across_splits:
        notes.append(f"{read.duplicates_across_splits} prompts stand in more than one split")
    if tokenised.bad:
        notes.append(f"{len(tokenised.bad)} unusable rows were skipped (data.on_bad_row=skip)")
    if tokenised.cut:
        notes.append(f"{tokenised.cut} completions were cut to data.max_tokens={plan.data.max_tokens}")
    return PreparedRows(
        splits=tokenised.splits,
        held_out=_held_out(plan, loaded),
        rows={name: len(rows) for name, rows in tokenised.splits.items()} | {"bad": len(tokenised.bad)},
        refused=len(tokenised.bad),
        cut=tokenised.cut,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _refuse_empty(splits: "dict[str, list[TokenizedRow]]", plan: Plan) -> None:
    needed = {"train", plan.scoring.split} | ({"validation"} if plan.trainer.evaluations else set())
    empty = sorted(name for name in needed if not splits[name])
    if empty:
        raise DataFault(
            f"data.path={plan.data.path} leaves no row for the split {' and '.join(empty)}; give more rows, or "
            "change data.splits, data.fractions or data.limits"
        )


def _held_out(plan: Plan, loaded: Base) -> "list[TokenizedRow]":
    if plan.scoring.forgetting is None:
        return []
    path = locate_data(plan.scoring.forgetting)
    if path is None:
        raise DataFault(
            f"scoring.forgetting={plan.scoring.forgetting}: no such file; correct the path or set it to null"
        )
    return held_out_rows(path, plan.scoring.forgetting_limit, loaded.tokenizer, plan.data.max_tokens)


def _key(plan: Plan, *parts: Any) -> str:
    return digest([plain(part) for part in parts] + [dict(plan.inputs)])
