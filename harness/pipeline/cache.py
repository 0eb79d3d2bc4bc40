"""What the runs of one process share: base model, tokenized rows, baselines and teacher, each made once.

The entry of the process makes one ``ProcessCache`` and passes it to every run. One base model is held at a time.
Runs work on forks of it; ``check_base`` proves after each run that its weights are still what was loaded.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runtime import distributed

if TYPE_CHECKING:  # the entry imports this module before it knows what the command needs
    from transformers import PreTrainedTokenizerBase

    from harness.models.base import Base
    from harness.pipeline.values import PreparedRows, SharedBase
    from harness.plan.spec import Plan
    from harness.scoring.score import Scores
    from harness.training.distillation import LoadedTeacher, Teacher


class ProcessCache:
    """Base model, rows, baselines and teacher of one process."""

    def __init__(self) -> None:
        self.shared: SharedBase | None = None  # the base model that is loaded now
        self._shared_key = ""
        self._rows: dict[str, PreparedRows] = {}  # of that base model's tokenizer
        self._baselines: dict[str, Scores] = {}
        self._teachers: dict[str, LoadedTeacher] = {}  # one at most

    def base(self, plan: "Plan") -> "SharedBase":
        """The plan's base model; loading another one releases what was held before."""
        from harness.models import base as model_base
        from harness.models import digests, sources
        from harness.pipeline.values import SharedBase

        key = _key(plan, plan.model)
        if self.shared is not None and self._shared_key == key:
            return replace(self.shared, seconds=0.0)
        self.release_base()
        started = time.perf_counter()
        if distributed.processes() > 1:  # one converts and caches, the others find it done
            distributed.broadcast_from_main(lambda: str(sources.locate_weights(plan.model).folder))
        loaded = model_base.load_base(plan.model)
        checksum = model_base.fingerprint_weights(loaded.model)
        self.shared = SharedBase(loaded, checksum, time.perf_counter() - started)
        self._shared_key = key
        digests.remember_weights(plan.base_key, checksum)
        return self.shared

    def check_base(self) -> str | None:
        """None if the base model is bit for bit as loaded; otherwise a note, and the next run loads it again."""
        from harness.models.base import fingerprint_weights

        if self.shared is None or fingerprint_weights(self.shared.base.model) == self.shared.checksum:
            return None
        self.release_base()
        return "this run changed weights of the shared base model; the next run loads it again"

    def release_base(self) -> None:
        """Drop the base model and the rows that its tokenizer made."""
        self.shared = None
        self._rows.clear()

    def rows(self, plan: "Plan", base: "Base") -> "PreparedRows":
        """The plan's data as tokens.

        Raises:
            DataFault: some rows cannot be used, or a split that the plan needs is empty.
        """
        from harness.pipeline.rows import prepare_rows, require_needed_splits, trained_as

        scoring = plan.scoring
        key = _key(plan, plan.data, plan.model, scoring.forgetting, scoring.forgetting_limit, scoring.template)
        if key in self._rows:
            found = replace(self._rows[key], seconds=0.0)
        else:
            found = self._rows[key] = prepare_rows(plan, base)
        require_needed_splits(found, plan)  # each time: plans over the same rows may need other splits
        return trained_as(found, plan.trainer.objective)

    def baseline(
        self,
        plan: "Plan",
        shared: "SharedBase",
        rows: "PreparedRows",
        runs_dir: Path,
        code: str,
        told: Callable[[str, int, int], None] = lambda unit, rows, of: None,
    ) -> "tuple[Scores, bool]":
        """Scores of the untouched base under the plan's protocol, and whether an earlier run measured them.

        Kept in the process and in ``runs_dir/baselines``, once per model, data, protocol and code version.
        """
        from harness.pipeline.baseline import baseline_path, measure_baseline, read_baseline
        from harness.plan.spec import digest

        base = shared.base
        # With the checksum, because a package's weights are not the hub's.
        key = digest([plan.protocol, code, shared.checksum, str(base.device), str(base.dtype)])
        if key in self._baselines:
            return self._baselines[key], True
        path = baseline_path(runs_dir, key)
        saved = read_baseline(path, answers=len(rows.scored[plan.scoring.split]) if plan.scoring.metrics else 0)
        self._baselines[key] = saved or measure_baseline(path, plan, base, rows, told)
        return self._baselines[key], saved is not None

    def teacher(self, plan: "Plan", runs_dir: Path, tokenizer: "PreTrainedTokenizerBase") -> "Teacher":
        """The frozen model that a plan with trainer.objective=distill learns from.

        Raises:
            ModelFault: it cannot be loaded, or its vocabulary is not the student's.
        """
        from harness.training import distillation

        key = f"{plan.inputs['teacher']} {plan.model.dtype} {plan.model.device}"
        if key not in self._teachers:
            self._teachers.clear()
            self._teachers[key] = distillation.load_teacher(plan, runs_dir)
        return distillation.mix_in(self._teachers[key], plan, tokenizer)


def _key(plan: "Plan", *parts: Any) -> str:
    from harness.plan.spec import CONTINUE_FROM, digest, plain

    inputs = {name: value for name, value in plan.inputs.items() if name != CONTINUE_FROM}  # neither base nor rows
    return digest([plain(part) for part in parts] + [inputs])
