"""What a method does during training beyond its parameters: penalties, pruning, its own optimizer or loss, checkpoint state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.methods.context import SheetValues

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.optim import Optimizer


def after_pruning(model: "PeftModel") -> int | None:
    """Parameters that pruning left: AdaLoRA's rows, columns and singular values; diff pruning's differences."""
    name = str(model.active_adapter)
    config: Any = model.peft_config[name]
    if getattr(config, "projected", False):
        tuner: Any = model.base_model
        return int(tuner.sparsity_report(name).nonzeros)
    if not hasattr(config, "target_r") or not config.rank_pattern:
        return None
    total = 0
    for path, layer in model.named_modules():
        if hasattr(layer, "lora_E"):
            [kept] = [ranks for key, ranks in config.rank_pattern.items() if f"{path}.lora_E".endswith(key)]
            total += sum(kept) * (layer.lora_A[name].shape[1] + layer.lora_B[name].shape[0] + 1)
    return total


PENALTIES = ("orth_reg_weight", "l0_weight")  # weights of what AdaLoRA and diff pruning add to the loss


def brings_its_loss(model: Any) -> bool:
    """Whether the method computes a training loss of its own (CPT), always the mean over one batch."""
    return model.peft_config[str(model.active_adapter)].peft_type == "CPT"


@contextmanager
def penalty_shared(model: Any, batches: int) -> Iterator[None]:
    """Let the penalties that a method adds to each batch's loss make one penalty an optimizer step.

    The loss of each of ``batches`` accumulated batches is divided by the step's tokens inside the model, but
    what a method adds after that is not divided, and would grow with the accumulation.
    """
    config = model.peft_config[str(model.active_adapter)]
    kept = {name: getattr(config, name) for name in PENALTIES if hasattr(config, name)}
    vars(config).update({name: weight / batches for name, weight in kept.items()})
    try:
        yield
    finally:
        vars(config).update(kept)


def optimizer_for(
    method: str, settings: SheetValues, model: "PeftModel", learning_rate: float, weight_decay: float
) -> "Optimizer | None":
    """The optimizer that the method brings; None: AdamW, as for every other. LoRA-FA freezes A here."""
    if method != "lora":
        return None
    import torch
    from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer

    if settings["lora_fa"]:
        rank, alpha = settings["r"], settings["lora_alpha"]
        return create_lorafa_optimizer(model, rank, alpha, lr=learning_rate, weight_decay=weight_decay)
    if settings["loraplus_lr_ratio"] is not None:
        return create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=learning_rate,
            loraplus_lr_ratio=settings["loraplus_lr_ratio"],
            loraplus_weight_decay=weight_decay,
        )
    return None


def finish(model: "PeftModel") -> dict[str, Any]:
    """What follows training and precedes saving: diff pruning keeps its largest differences, if it has not yet.

    Returns:
        Figures for the record; empty for every other method.
    """
    tuner: Any = model.base_model
    name = str(model.active_adapter)
    if not hasattr(tuner, "project"):
        return {}
    done = tuner.peft_config[name].projected
    return dict((tuner.sparsity_report(name) if done else tuner.project(name)).as_dict())


ADALORA = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what its rank allocator remembers, by parameter


def method_state(model: Any) -> dict[str, Any]:
    name, tuner = str(model.active_adapter), model.base_model
    config = model.peft_config[name]
    if hasattr(tuner, "rankallocator"):
        kept = {key: getattr(tuner.rankallocator, key) for key in ADALORA}
        return {"rank_pattern": config.rank_pattern, "allocator": kept}
    if getattr(config, "projected", False):
        return {"places": tuner.places(name)}
    return {}


def load_method_state(model: Any, state: Mapping[str, Any]) -> None:
    name, tuner = str(model.active_adapter), model.base_model
    if "allocator" in state:
        model.peft_config[name].rank_pattern = state["rank_pattern"]
        weights = dict(tuner.model.named_parameters())
        for key, values in state["allocator"].items():
            placed = {each: value.to(weights[each].device) for each, value in values.items()}
            setattr(tuner.rankallocator, key, placed)
    if "places" in state:
        tuner.fix_places(name, state["places"])


def settled_after(model: "PeftModel") -> int:
    """First step whose weights may be kept: before a method has pruned, they exceed its budget."""
    config: Any = model.peft_config[str(model.active_adapter)]
    if getattr(config, "project_step", None) is not None:
        return int(config.project_step)
    total = getattr(config, "total_step", None)
    return total - config.tfinal if total else 0


class Prune(TrainerCallback):
    """Lets methods that prune do so at their time, by the optimizer step that their configuration names."""

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """AdaLoRA's ranks: after the optimizer's step, while gradients still stand."""
        tuner = model.base_model
        if hasattr(tuner, "update_and_allocate"):
            tuner.update_and_allocate(state.global_step + 1)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Diff pruning's differences: their places are fixed from here on."""
        config = model.peft_config[str(model.active_adapter)]
        if getattr(config, "project_step", None) == state.global_step:
            model.base_model.project(str(model.active_adapter), trainable=True)
            regroup_optimizer(optimizer, model)


def regroup_optimizer(optimizer: Any, model: torch.nn.Module) -> None:
    """Give the optimizer what trains now, in the groups that Trainer would make; moments of the rest are dropped."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for group, decays in zip(inner.param_groups, (True, False), strict=True):
        group["params"] = [parameter for name, parameter in named if (name in decayed) is decays]
    for former in set(inner.state) - {parameter for _, parameter in named}:
        del inner.state[former]
