"""The teacher of a distillation: a frozen model whose distribution over the completion is learned beside the labels.

Hinton et al. 2015 (arXiv:1503.02531, sec. 2): the divergence of both distributions at temperature T, times T
squared so that its gradients keep their size, mixed with the cross-entropy of the true tokens.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.plan.inputs import teacher_model, teacher_run
from harness.record import store

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from harness.plan.spec import Plan


@dataclass(frozen=True)
class Teacher:
    """A frozen model, and how it is mixed in."""

    model: Any
    temperature: float
    weight: float  # of the teacher's term; the labels' term has the rest
    note: str


@dataclass(frozen=True)
class LoadedTeacher:
    """A frozen model with its tokenizer, and what the record says about it."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    note: str


def load_teacher(plan: "Plan", runs_dir: Path) -> LoadedTeacher:
    """The model that the plan's ``trainer.teacher`` names: a finished run, or a base model.

    Raises:
        ModelFault: it cannot be loaded.
    """
    from harness.adapters import save_load
    from harness.methods.registry import changes_base
    from harness.models import base as model_base
    from harness.plan.from_record import plan_of_record

    name = str(plan.trainer.teacher)
    found = teacher_run(name, runs_dir)
    if found is None:
        base = model_base.load_base(teacher_model(name, plan.model, plan.inputs["teacher"]))
        return LoadedTeacher(base.model, base.tokenizer, f"teacher: {name}")
    taught = plan_of_record(found)
    base = model_base.load_base(taught.model)
    fork = model_base.fork(base, changes_base(taught.method, taught.settings))
    folder = store.adapter_folder(runs_dir, found)
    model = save_load.load_adapter(fork, folder, taught).requires_grad_(False).eval()
    note = f"teacher: run {found['fingerprint']} ({taught.method} on {taught.model.name})"
    return LoadedTeacher(model, base.tokenizer, note)


def mix_in(loaded: LoadedTeacher, plan: "Plan", tokenizer: "PreTrainedTokenizerBase") -> Teacher:
    """The teacher as the plan uses it.

    Raises:
        ModelFault: its vocabulary is not the student's.
    """
    trainer, own = plan.trainer, loaded.tokenizer
    if own.get_vocab() != tokenizer.get_vocab() or own.eos_token_id != tokenizer.eos_token_id:
        raise ModelFault(
            f"trainer.teacher={trainer.teacher} has another vocabulary than model={plan.model.name}, so their "
            "distributions cannot be compared; use a teacher with the student's tokenizer"
        )
    return Teacher(loaded.model, trainer.distill_temperature, trainer.distill_weight, loaded.note)


def teacher_term(
    teacher: Teacher, student_btv: "torch.Tensor", inputs: dict[str, Any]
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed divergence from the teacher on the labelled tokens, times T squared, and their cross-entropy (nats)."""
    import torch
    from torch.nn import functional

    from harness.models.device import base_precision
    from harness.scoring.losses import can_skip_logits, completion_loss_sum

    device = next(teacher.model.parameters()).device
    seen = {name: inputs[name].to(device) for name in ("input_ids", "attention_mask")}
    labels_bt = inputs["labels"][:, -student_btv.shape[1] :]  # logits that no label needs may have been left out
    length = labels_bt.shape[1]  # virtual tokens before the text lengthen the logits
    if can_skip_logits(teacher.model):
        seen["logits_to_keep"] = length
    with torch.no_grad(), base_precision(teacher.model):
        teacher_btv = teacher.model(**seen).logits.to(student_btv.device)
    kept = labels_bt[:, 1:] != -100
    size = min(student_btv.shape[-1], teacher_btv.shape[-1])  # past the vocabulary, widths are padding
    student, own = (logits[:, -length:-1][kept][:, :size].float() for logits in (student_btv, teacher_btv))
    cold = functional.log_softmax(student / teacher.temperature, dim=-1)
    warm = functional.log_softmax(own / teacher.temperature, dim=-1)
    divergence = functional.kl_div(cold, warm, reduction="sum", log_target=True) * teacher.temperature**2
    return divergence, completion_loss_sum(student_btv, labels_bt)[0]
