"""Content hashes of what a plan reads: data, local weights, a teacher."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config import schema
from harness.config.schema import DType, Model, ModelSource, Quantization
from harness.data.sources import data_sha256, text_sha256
from harness.errors import ConfigFault
from harness.models import sources as model_sources
from harness.models.hub import COMMIT, resolved_commit
from harness.plan.continuation import source_digest
from harness.plan.extensions import code_digests
from harness.plan.spec import CONTINUE_FROM
from harness.record import store
from harness.record.adapter_files import require_whole
from harness.scoring import judging, lm_harness
from harness.scoring.catalog import JUDGE


def input_digests(config: schema.Config) -> dict[str, str]:
    """Content hash of everything that the plan reads from files: an edited file makes another experiment.

    Raises:
        DataFault, ModelFault: a file is missing.
        ConfigFault: the teacher is a run that is not finished.
    """
    digests = {"data": data_sha256(config.data), "model": model_sources.weights_hash(config.model)}
    if config.scoring.forgetting is not None:
        digests["forgetting"] = text_sha256(config.scoring.forgetting)
    if config.trainer.objective is schema.Objective.distill:
        digests["teacher"] = teacher_digest(str(config.trainer.teacher), Path(config.runs_dir).expanduser().absolute())
    if config.trainer.continue_from is not None:
        digests[CONTINUE_FROM] = source_digest(config, digests["model"])
    digests |= code_digests(config)
    if JUDGE in config.scoring.metrics:
        digests["judge"] = judging.judge_digest(config.scoring.judge)
    if config.scoring.lm_eval.tasks:
        digests["lm_eval"] = lm_harness.tasks_digest(config.scoring.lm_eval)
    return {key: value for key, value in digests.items() if value is not None}


def teacher_digest(teacher: str, runs_dir: Path) -> str:
    """What a plan's fingerprint includes of its teacher: weights of a folder, adapter of a run, or name on the hub.

    Raises:
        ConfigFault: the run is not finished or has no adapter.
        ModelFault: its adapter is damaged.
    """
    record = teacher_run(teacher, runs_dir)
    if record is not None:
        folder = require_whole(store.adapter_folder(runs_dir, record), record)
        return f"run {record['fingerprint']} {_files_digest(folder)}"
    if model_sources.local_path(teacher).is_dir():
        return str(model_sources.weights_hash(teacher_model(teacher)))
    commit = resolved_commit(teacher, None)
    return f"hub {teacher} {commit}" if commit else f"hub {teacher}"


def teacher_run(teacher: str, runs_dir: Path) -> dict[str, Any] | None:
    """The finished record with this fingerprint; None if there is no such run.

    Raises:
        ConfigFault: the run is not finished or has no adapter.
    """
    if not re.fullmatch(r"[0-9a-f]{12}", teacher) or not store.record_path(runs_dir, teacher).exists():
        return None
    record = store.read_record(runs_dir, teacher)
    if record is None or record["status"] != "finished":
        raise ConfigFault(f"trainer.teacher={teacher} is a run that is not finished; run its command again first")
    store.adapter_folder(runs_dir, record)
    return record


def teacher_model(teacher: str, student: Model | None = None, digest: str = "") -> Model:
    """A folder or hub name as a base model, with the precision and devices of the student's base.

    Args:
        digest: what ``teacher_digest`` said, whose commit on the hub is taken.
    """
    source = ModelSource.folder if model_sources.local_path(teacher).is_dir() else ModelSource.hub
    commit = next(iter(COMMIT.findall(digest)), None) if source is ModelSource.hub else None
    blank = Model(
        name=teacher, source=source, path=teacher, revision=commit, packages=[], sha256=None, config_only=None,
        dtype=DType.auto, quantization=Quantization.none, prune=0.0, device="auto", device_map=None,
        attn_implementation=None, trust_remote_code=False,
    )  # fmt: skip
    if student is None:
        return blank
    return replace(blank, dtype=student.dtype, device=student.device, device_map=student.device_map)


def _files_digest(folder: Path) -> str:
    result = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        result.update(path.read_bytes())
    return result.hexdigest()[:16]
