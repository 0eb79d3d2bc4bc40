"""Adapters on disk, in PEFT's format, with a note of the run and template that they belong to."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.plan import Plan
from harness.record import atomic_write_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

NOTE = "harness.json"
START = "start"


@dataclass(frozen=True)
class Saved:
    """What was written: bytes on disk, by file, and numbers (parameters and buffers) in the weight files."""

    bytes: int
    files: dict[str, int]
    numbers: int
    trainable_final: int | None  # after pruning, for methods that prune


def keep_start(model: "PeftModel", scratch: Path) -> Callable[[Path], None]:
    """A function that saves ``model``; call this before training.

    Methods that write into base weights (PiSSA, OLoRA) keep their start in ``scratch``, so that the saved
    adapter is the difference to the true base: a plain LoRA of twice the rank (PEFT's conversion).
    """
    config: Any = model.peft_config[str(model.active_adapter)]
    init = getattr(config, "init_lora_weights", None)
    if not str(init).startswith(("pissa", "olora")):
        return lambda folder: model.save_pretrained(str(folder))
    start = str(scratch / START)
    config.init_lora_weights = True  # so that loading the start does not rewrite the base again
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


def save(write: Callable[[Path], Any], folder: Path, plan: Plan, model: "PeftModel") -> Saved:
    """Write the adapter beside its place, then put it there whole; an older one gives way."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    (partial / "README.md").unlink(missing_ok=True)  # PEFT's model card, a form that nobody filled in
    note = {"fingerprint": plan.fingerprint, "method": plan.method, "plan": plan.as_dict()}
    atomic_write_text(partial / NOTE, json.dumps(note, ensure_ascii=False, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    files = {path.name: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    numbers = _numbers(folder)
    return Saved(sum(files.values()), files, numbers, _after_pruning(model))


def load(model: "PreTrainedModel", folder: Path) -> "PeftModel":
    """The adapter on a fresh fork of its base, ready to generate.

    Raises:
        ModelFault: there is no adapter in ``folder``, or it does not fit the model.
    """
    from peft import PeftModel

    from harness import tuners

    tuners.register()
    if not (folder / "adapter_config.json").exists():
        raise ModelFault(f"{folder} holds no adapter; run its plan first (rerun=true does it again)")
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelFault(f"the adapter in {folder} does not fit the base model: {error}") from error


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


def _after_pruning(model: "PeftModel") -> int | None:
    """Trainable parameters that AdaLoRA left: of each kept rank its row, column and singular value."""
    name = str(model.active_adapter)
    config: Any = model.peft_config[name]
    if not hasattr(config, "target_r") or not config.rank_pattern:
        return None
    total = 0
    for path, layer in model.named_modules():
        if hasattr(layer, "lora_E"):
            [kept] = [ranks for key, ranks in config.rank_pattern.items() if f"{path}.lora_E".endswith(key)]
            total += sum(kept) * (layer.lora_A[name].shape[1] + layer.lora_B[name].shape[0] + 1)
    return total
