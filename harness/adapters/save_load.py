"""Adapters on disk, in PEFT's format, with a note of the plan that they belong to."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.adapters import initializers
from harness.config.schema import ModelSource
from harness.errors import ModelFault
from harness.methods.registry import hooks_of
from harness.models.peft_adapters import ADAPTER_NOTE, CONFIG, stored_numbers
from harness.plan.spec import Plan
from harness.record.files import file_sha256, partial_path, redact_json, remove, replacing, write_json
from harness.runtime import distributed

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

START = "start"
PARTIAL_TAG = "saving"
# What PEFT keeps in sets, and so writes in another order in every process.
SETS = ("target_modules", "exclude_modules", "feedforward_modules")


@dataclass(frozen=True)
class SavedAdapter:
    """What was written."""

    bytes: int
    files: dict[str, int]  # bytes by file name
    sha256: dict[str, str]  # by file name
    numbers: int  # parameters and buffers in the weight files
    trainable_final: int | None  # trainable parameters that pruning left, for methods that prune


def adapter_writer(model: "PeftModel", scratch: Path) -> Callable[[Path], None]:
    """A function that saves ``model``; call ``adapter_writer`` before training.

    For initializations that change base weights (PiSSA, OLoRA, CorDA, LoRA-GA), the start is kept in ``scratch``, so
    that the saved adapter is the difference to the original base: a plain LoRA of twice the rank (PEFT's conversion).
    """
    config: Any = model.peft_config[str(model.active_adapter)]
    init = getattr(config, "init_lora_weights", None)
    if not initializers.rewrites_base(init):
        return lambda folder: model.save_pretrained(str(folder))
    start = str(scratch / START)
    config.init_lora_weights = True  # so that loading the start does not change the base again
    if distributed.is_main_process():
        model.save_pretrained(start)
    config.init_lora_weights = init

    def save(folder: Path) -> None:
        # The conversion doubles the rank in the live configuration; restore it afterwards.
        before = {key: getattr(config, key) for key in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")}
        try:
            model.save_pretrained(str(folder), path_initial_model_for_weight_conversion=start)
        finally:
            vars(config).update(before, init_lora_weights=init)
            remove(Path(start))

    return save


def save_adapter(write: Callable[[Path], Any], folder: Path, plan: Plan, model: "PeftModel") -> SavedAdapter:
    """Write the adapter and its note to ``folder``, which is never incomplete; an older adapter is replaced."""
    remove(partial_path(folder, PARTIAL_TAG))  # of a process that was killed here
    with replacing(folder, PARTIAL_TAG) as partial:
        write(partial)
        (partial / "README.md").unlink(missing_ok=True)  # PEFT's model card, an empty form
        _tidy_config(partial / CONFIG, plan)
        write_json(
            partial / ADAPTER_NOTE, {"fingerprint": plan.fingerprint, "method": plan.method, "plan": plan.as_dict()}
        )
        for file in partial.rglob("*.json"):  # PEFT's own, which name the base by its path
            redact_json(file)
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: path.stat().st_size for name, path in paths.items()}
    hashes = {name: file_sha256(path) for name, path in paths.items()}
    numbers = stored_numbers(folder)
    left = hooks_of(plan.method, plan.settings).remaining_parameters(model)
    return SavedAdapter(sum(files.values()), files, hashes, numbers, left)


def _tidy_config(file: Path, plan: Plan) -> None:
    """Sort the names that PEFT keeps in sets, so that equal runs leave equal files; name the base as the hub does."""
    content = json.loads(file.read_text(encoding="utf-8"))
    content |= {key: sorted(content[key]) for key in SETS if isinstance(content.get(key), list)}
    content |= _name_of_base(content, plan)
    file.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def _name_of_base(content: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    """Name and commit of a base from the hub, which PEFT calls by its cache folder; empty for other bases."""
    used = str(content.get("base_model_name_or_path"))
    snapshot = re.search(r"models--[^/]+/snapshots/([0-9a-f]{40})", Path(used).as_posix())
    if snapshot is None or plan.model.source not in (ModelSource.hub, ModelSource.package) or not plan.model.path:
        return {}
    named = {"base_model_name_or_path": plan.model.path, "revision": snapshot[1]}
    if content.get("tokenizer_name_or_path") == used:  # of a prompt that starts as a text
        named["tokenizer_name_or_path"] = plan.model.path
    return named


def load_adapter(model: "PreTrainedModel", folder: Path, plan: Plan) -> "PeftModel":
    """The plan's adapter on a fresh fork of its base, ready to generate.

    Raises:
        ModelFault: there is no adapter in ``folder``, it was trained by another plan (perhaps with another template),
            or it does not fit the model.
    """
    from harness.adapters.attach import load_peft_model

    if not (folder / CONFIG).exists():
        raise ModelFault(f"{folder} has no adapter; run its plan first (again with rerun=true if it has finished)")
    try:
        note = json.loads((folder / ADAPTER_NOTE).read_text(encoding="utf-8"))
        trained_by = note["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFault(
            f"{folder / ADAPTER_NOTE} does not say which plan trained the adapter ({error}); run that plan again with "
            "rerun=true"
        ) from error
    if trained_by != plan.fingerprint:
        raise ModelFault(
            f"the adapter in {folder} is of run {trained_by}, not of {plan.fingerprint}; run the plan again"
        )
    return load_peft_model(model, folder)
