"""Adapters on disk, in PEFT's format, with a note of the run and template that they belong to."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.adapters import initializers
from harness.errors import ModelFault
from harness.methods.registry import hooks_of
from harness.plan.spec import Plan
from harness.record.files import atomic_write_text
from harness.runtime import distributed

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_NOTE = "harness.json"


START = "start"


@dataclass(frozen=True)
class SavedAdapter:
    """What was written: bytes on disk, by file, and numbers (parameters and buffers) in the weight files."""

    bytes: int
    files: dict[str, int]
    numbers: int
    trainable_final: int | None  # what pruning left of the trainable parameters, for methods that prune


def adapter_writer(model: "PeftModel", scratch: Path) -> Callable[[Path], None]:
    """A function that saves ``model``; call this before training.

    Initialisations that write into base weights (PiSSA, OLoRA, CorDA, LoRA-GA) keep their start in
    ``scratch``, so that the saved adapter is the difference to the true base: a plain LoRA of twice the rank
    (PEFT's conversion).
    """
    config: Any = model.peft_config[str(model.active_adapter)]
    init = getattr(config, "init_lora_weights", None)
    if not initializers.rewrites_base(init):
        return lambda folder: model.save_pretrained(str(folder))
    start = str(scratch / START)
    config.init_lora_weights = True  # so that loading the start does not rewrite the base again
    if distributed.is_main_process():
        model.save_pretrained(start)
    config.init_lora_weights = init

    def save(folder: Path) -> None:
        # The conversion doubles the rank in the live configuration: give it back afterwards.
        kept = {key: getattr(config, key) for key in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")}
        try:
            model.save_pretrained(str(folder), path_initial_model_for_weight_conversion=start)
        finally:
            vars(config).update(kept, init_lora_weights=init)
            shutil.rmtree(start, ignore_errors=True)

    return save


def save_adapter(write: Callable[[Path], Any], folder: Path, plan: Plan, model: "PeftModel") -> SavedAdapter:
    """Write the adapter beside its place, then put it there whole; an older one gives way."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    (partial / "README.md").unlink(missing_ok=True)  # PEFT's model card, a form that nobody filled in
    note = {"fingerprint": plan.fingerprint, "method": plan.method, "plan": plan.as_dict()}
    atomic_write_text(partial / ADAPTER_NOTE, json.dumps(note, ensure_ascii=False, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    files = {path.name: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    numbers = _numbers(folder)
    return SavedAdapter(
        sum(files.values()), files, numbers, hooks_of(plan.method, plan.settings).remaining_parameters(model)
    )


def load_adapter(model: "PreTrainedModel", folder: Path, plan: Plan) -> "PeftModel":
    """The plan's adapter on a fresh fork of its base, ready to generate.

    Raises:
        ModelFault: there is no adapter in ``folder``, it was trained by another plan and so perhaps with another
            template, or it does not fit the model.
    """
    from harness.adapters.attach import load_peft_model

    if not (folder / "adapter_config.json").exists():
        raise ModelFault(f"{folder} holds no adapter; run its plan first (rerun=true does it again)")
    try:
        note = json.loads((folder / ADAPTER_NOTE).read_text(encoding="utf-8"))
        trained_by = note["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFault(
            f"{folder / ADAPTER_NOTE} does not say which plan trained the adapter ({error}); run that plan again with "
            "rerun=true"
        ) from error
    if trained_by != plan.fingerprint:
        raise ModelFault(f"the adapter in {folder} is of run {trained_by}, not of {plan.fingerprint}; do the run again")
    return load_peft_model(model, folder)


def _numbers(folder: Path) -> int:
    """Numbers stored in the safetensors files, by their headers alone."""
    from safetensors import safe_open

    total = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                size = 1
                for length in file.get_slice(key).get_shape():
                    size *= length
                total += size
    return total
