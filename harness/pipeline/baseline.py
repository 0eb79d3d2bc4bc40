"""Scores of the untouched base model, kept in ``runs_dir/baselines`` for other processes and later commands."""

import json
import logging
import math
from pathlib import Path

from harness.models.base import Base
from harness.pipeline.values import PreparedRows
from harness.plan.spec import Plan
from harness.record.files import write_json
from harness.scoring import score as scoring_score
from harness.scoring.batching import needs_equal_lengths
from harness.scoring.losses import Told, untold
from harness.scoring.score import Scores

log = logging.getLogger(__name__)


def baseline_path(runs_dir: Path, key: str) -> Path:
    """The file of one baseline."""
    return runs_dir / "baselines" / f"{key}.json"


def read_baseline(path: Path, answers: int) -> Scores | None:
    """The saved baseline if it is complete and has that many answers; a damaged one counts as missing."""
    try:
        found = Scores(**json.loads(path.read_text(encoding="utf-8")))
        if len(found.answers) != answers or not all(math.isfinite(value) for value in found.values.values()):
            raise ValueError(f"{len(found.answers)} answers instead of {answers}, or a score that is not finite")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s is not a valid baseline (%s); measuring it again", path, error)
        return None


def measure_baseline(path: Path, plan: Plan, base: Base, rows: PreparedRows, told: Told = untold) -> Scores:
    """Score the base model under the plan's protocol, and save the scores."""
    found = scoring_score.score(
        base.model,
        base.tokenizer,
        rows.scored[plan.scoring.split],
        rows.held_out,
        plan.scoring,
        stops=rows.stops,
        equal_lengths=needs_equal_lengths(base.model),
        seed=plan.seed,
        told=told,
    )
    write_json(path, vars(found))
    return found
