"""Content hashes of what a plan reads: data, local weights, a teacher."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import schema
from harness.config.schema import ModelSource, Quantization
from harness.errors import ConfigFault
from harness.models import sources as model_sources
from harness.record import store

if TYPE_CHECKING:
    from harness.plan.spec import Plan


def input_digests(config: schema.Config) -> dict[str, str]:
    """Content hashes, so that an edited file is another experiment."""
    from harness.data.sources import data_sha256, text_sha256
    from harness.models import sources as model_sources

    found = {"data": data_sha256(config.data), "model": model_sources.weights_hash(config.model)}
    if config.scoring.forgetting is not None:
        found["forgetting"] = text_sha256(config.scoring.forgetting)
    if config.trainer.objective is schema.Objective.distill:
        found["teacher"] = teacher_digest(str(config.trainer.teacher), Path(config.runs_dir).expanduser().absolute())
    return {key: value for key, value in found.items() if value is not None}


def teacher_digest(teacher: str, runs_dir: Path) -> str:
    """What the plan's fingerprint keeps of the teacher: weights of a folder, adapter of a run, name on the hub.

    Raises:
        ConfigFault: the run is not finished or has no adapter.
    """
    found = teacher_run(teacher, runs_dir)
    if found is not None:
        folder = store.record_path(runs_dir, found["fingerprint"]).parent / found["adapter"]["path"]
        return f"run {found['fingerprint']} {_files_digest(folder)}"
    if model_sources.local_path(teacher).is_dir():
        return str(model_sources.weights_hash(teacher_model(teacher, None)))
    return f"hub {teacher}"


def teacher_run(teacher: str, runs_dir: Path) -> dict[str, Any] | None:
    """The finished record with this fingerprint; None where there is no such run."""
    if not re.fullmatch(r"[0-9a-f]{12}", teacher) or not store.record_path(runs_dir, teacher).exists():
        return None
    found = store.read_record(runs_dir, teacher)
    if found is None or found["status"] != "finished" or not found["adapter"]:
        raise ConfigFault(
            f"trainer.teacher={teacher} is a run that is not finished or kept no adapter; run its command again first"
        )
    return found


def teacher_model(teacher: str, plan: "Plan | None") -> Any:
    """A folder or hub name as a base model, with the student's precision and device."""
    from harness.config.schema import DType, Model

    source = ModelSource.folder if model_sources.local_path(teacher).is_dir() else ModelSource.hub
    blank = Model(
        name=teacher, source=source, path=teacher, revision=None, packages=[], sha256=None, config_only=None,
        dtype=DType.auto, quantization=Quantization.none, prune=0.0, device="auto", device_map=None,
        attn_implementation=None, trust_remote_code=False,
    )  # fmt: skip
    if plan is None:
        return blank
    like = plan.model
    return replace(blank, dtype=like.dtype, device=like.device, device_map=like.device_map)


def _files_digest(folder: Path) -> str:
    import hashlib

    result = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        result.update(path.read_bytes())
    return result.hexdigest()[:16]
