"""The teacher of a distillation: a frozen model whose distribution over the completion is learnt beside the labels.

Hinton et al. 2015 (arXiv:1503.02531, sec. 2): the divergence of both distributions at temperature T, times T
squared so that its gradients keep their size, mixed with the cross-entropy of the true tokens.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import record, weights
from harness.errors import ConfigFault, ModelFault
from harness.schema import Quantization, Source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from harness.plan import Plan


@dataclass(frozen=True)
class Teacher:
    """A frozen model, and how it is mixed in."""

    model: Any
    temperature: float
    weight: float  # of the teacher's term; the labels' has the rest
    note: str


_loaded: dict[str, Any] = {}


def digest(teacher: str, runs_dir: Path) -> str:
    """What the plan's fingerprint keeps of the teacher: weights of a folder, adapter of a run, name on the hub.

    Raises:
        ConfigFault: the run is not finished or has no adapter.
    """
    found = _run(teacher, runs_dir)
    if found is not None:
        folder = record.path(runs_dir, found["fingerprint"]).parent / found["adapter"]["path"]
        return f"run {found['fingerprint']} {_files_digest(folder)}"
    if weights.find(teacher).is_dir():
        return str(weights.digest(_model(teacher, None)))
    return f"hub {teacher}"


def load(plan: "Plan", runs_dir: Path, tokenizer: "PreTrainedTokenizerBase") -> Teacher:
    """The plan's teacher, loaded once per process.

    Raises:
        ModelFault: it cannot be loaded, or its vocabulary is not the student's.
    """
    trainer = plan.trainer
    key = f"{plan.inputs['teacher']} {plan.model.dtype} {plan.model.device}"
    if key not in _loaded:
        _loaded.clear()  # one teacher at a time
        _loaded[key] = _load(plan, runs_dir)
    model, own, note = _loaded[key]
    if own.get_vocab() != tokenizer.get_vocab() or own.eos_token_id != tokenizer.eos_token_id:
        raise ModelFault(
            f"trainer.teacher={trainer.teacher} has another vocabulary than model={plan.model.name}, so that their "
            "distributions do not compare; take a teacher with the student's tokenizer"
        )
    return Teacher(model, trainer.distill_temperature, trainer.distill_weight, note)


def term(teacher: Teacher, student_btv: "torch.Tensor", inputs: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed divergence from the teacher on the labelled tokens, times T squared, and their cross-entropy (nats)."""
    import torch
    from torch.nn import functional

    from harness.losses import arithmetic, completion_loss_sum, spares_logits

    device = next(teacher.model.parameters()).device
    seen = {name: inputs[name].to(device) for name in ("input_ids", "attention_mask")}
    labels_bt = inputs["labels"][:, -student_btv.shape[1] :]  # it may have left out logits that nobody needs
    length = labels_bt.shape[1]  # virtual tokens before the text lengthen the logits
    if spares_logits(teacher.model):
        seen["logits_to_keep"] = length
    with torch.no_grad(), arithmetic(teacher.model):
        teacher_btv = teacher.model(**seen).logits.to(student_btv.device)
    kept = labels_bt[:, 1:] != -100
    size = min(student_btv.shape[-1], teacher_btv.shape[-1])  # past the vocabulary, widths are padding
    student, own = (logits[:, -length:-1][kept][:, :size].float() for logits in (student_btv, teacher_btv))
    cold = functional.log_softmax(student / teacher.temperature, dim=-1)
    warm = functional.log_softmax(own / teacher.temperature, dim=-1)
    divergence = functional.kl_div(cold, warm, reduction="sum", log_target=True) * teacher.temperature**2
    return divergence, completion_loss_sum(student_btv, labels_bt)[0]


def _load(plan: "Plan", runs_dir: Path) -> tuple[Any, Any, str]:
    from harness import adapters, ask, methods, models

    name = str(plan.trainer.teacher)
    found = _run(name, runs_dir)
    if found is None:
        base = models.load_base(_model(name, plan))
        return base.model, base.tokenizer, f"teacher: {name}"
    taught = ask.plan_of(found)
    base = models.load_base(taught.model)
    fork = models.fork(base, methods.changes_base(taught.method, taught.settings))
    folder = record.path(runs_dir, found["fingerprint"]).parent / found["adapter"]["path"]
    model = adapters.load(fork, folder, taught).requires_grad_(False).eval()
    return model, base.tokenizer, f"teacher: run {found['fingerprint']} ({taught.method} on {taught.model.name})"


def _run(teacher: str, runs_dir: Path) -> dict[str, Any] | None:
    """The finished record with this fingerprint; None where there is no such run."""
    if not re.fullmatch(r"[0-9a-f]{12}", teacher) or not record.path(runs_dir, teacher).exists():
        return None
    found = record.read(runs_dir, teacher)
    if found is None or found["status"] != "finished" or not found["adapter"]:
        raise ConfigFault(
            f"trainer.teacher={teacher} is a run that is not finished or kept no adapter; run its command again first"
        )
    return found


def _model(teacher: str, plan: "Plan | None") -> Any:
    """A folder or hub name as a base model, with the student's precision and device."""
    from harness.schema import DType, Model

    source = Source.folder if weights.find(teacher).is_dir() else Source.hub
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
