"""What ``trainer.parallel.strategy`` changes in training: DDP, FSDP2 and DeepSpeed on transformers' Trainer.

If weights are sharded, a copy of the model trains, and ``subject`` copies the result back, so that everything after
training sees a whole model.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.config import schema
from harness.config.schema import Strategy
from harness.errors import RunFault
from harness.runtime import distributed

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.data.tokenize import TokenizedRow

# Accelerate passes its choices on in these, within a process too: the next run must not inherit them.
SWITCHES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION", "FSDP_CPU_RAM_EFFICIENT_LOADING")


def arguments(settings: schema.Parallel) -> dict[str, Any]:
    """The part of ``TrainingArguments`` that the strategy sets."""
    match settings.strategy:
        case Strategy.none:
            return {}
        case Strategy.ddp:
            return {"ddp_find_unused_parameters": settings.find_unused_parameters}
        case Strategy.fsdp:
            fsdp = settings.fsdp
            config: dict[str, Any] = {
                "version": 2,
                "reshard_after_forward": fsdp.reshard_after_forward,
                "cpu_offload": fsdp.cpu_offload,
                "cpu_ram_efficient_loading": False,  # every process has the base already
            }
            if fsdp.transformer_layer_cls_to_wrap is not None:
                config["transformer_layer_cls_to_wrap"] = list(fsdp.transformer_layer_cls_to_wrap)
            return {"fsdp": True, "fsdp_config": config}
        case Strategy.deepspeed:
            return {"deepspeed": copy.deepcopy(settings.deepspeed)}


def settle_plugin(accelerator: Any, plugin_arguments: dict[str, Any] | None) -> bool:
    """Let FSDP work on CPUs, where Accelerate knows only DDP; return whether that was necessary.

    Its FSDP2 code works on CPUs as well, but Accelerate never calls it there.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    if plugin_arguments is None or accelerator.distributed_type is not DistributedType.MULTI_CPU:
        return False
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin_arguments)
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return True


def confirm_sharded(accelerator: Any, strategy: Strategy) -> None:
    """Raise RunFault if Accelerate uses another strategy than the plan, e.g. because of its environment."""
    found = str(accelerator.distributed_type.value)
    wanted = {
        Strategy.none: ("NO",),
        Strategy.ddp: ("MULTI_CPU", "MULTI_GPU"),
        Strategy.fsdp: ("FSDP",),
        Strategy.deepspeed: ("DEEPSPEED",),
    }[strategy]
    if found not in wanted:
        raise RunFault(
            f"trainer.parallel.strategy={strategy.value}, but Accelerate uses {found}; start without Accelerate's "
            "own options (accelerate launch --use_fsdp, --use_deepspeed) and set trainer/parallel instead"
        )


@contextmanager
def subject(model: "PeftModel", settings: schema.Parallel, idle: Sequence[nn.Module] = ()) -> "Iterator[PeftModel]":
    """The model to train: itself, or a copy if the strategy shards weights; ``model`` then gets what the copy learned.

    Args:
        idle: other models over the same weights.
    """
    before = {name: os.environ.get(name) for name in SWITCHES}
    try:
        if not schema.shards(settings.strategy, settings.deepspeed):
            yield model
            return
        with parked([model, *idle]):
            sharded = _copy(model)
            yield sharded
            _copy_back(model, sharded)
    finally:
        if settings.strategy is Strategy.deepspeed:
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()  # otherwise loading and generating would still wait for all processes
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _copy(model: "PeftModel") -> "PeftModel":
    """A separate module tree over the same storage."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _copy_back(model: "PeftModel", trained: "PeftModel") -> None:
    """Copy the trained weights into ``model``; all processes take part."""
    targets, buffers = dict(model.named_parameters()), dict(trained.named_buffers())
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad:
                targets[name].copy_(full_tensor(parameter))
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


@contextmanager
def parked(models: Sequence[nn.Module]) -> Iterator[None]:
    """Move whole weights to the machine's memory meanwhile, so that a GPU holds only shards of them.

    Weights that share storage still do, there and when they are back.
    """
    parameters = [parameter for model in models for parameter in model.parameters()]
    devices = [parameter.device for parameter in parameters]
    if any(device.type != "cpu" for device in devices):
        move_weights(parameters, [torch.device("cpu")] * len(parameters))
    try:
        yield
    finally:
        if any(device.type != "cpu" for device in devices):
            move_weights(parameters, devices)


def move_weights(parameters: Sequence[nn.Parameter], devices: Sequence[torch.device]) -> None:
    """Move each parameter to its device; those that share storage still do afterwards."""
    moved: dict[tuple[Any, ...], torch.Tensor] = {}
    kept = [parameter.data for parameter in parameters]  # until all are moved: freed storage may be reused
    for parameter, data, device in zip(parameters, kept, devices, strict=True):
        key = (data.data_ptr(), data.shape, data.stride(), data.dtype)
        if key not in moved:
            moved[key] = data.to(device, copy=True)
        parameter.data = moved[key]


def full_tensor(parameter: torch.Tensor) -> torch.Tensor:
    """All of a weight; if it is sharded, all processes must call this."""
    if hasattr(parameter, "full_tensor"):  # FSDP2's DTensor
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id"):  # ZeRO 3
        import deepspeed  # type: ignore[import-not-found]

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.data.clone()
    return parameter


def in_step(
    collate: Callable[[list["TokenizedRow"]], dict[str, torch.Tensor]], some: "TokenizedRow"
) -> Callable[[Sequence["TokenizedRow | None"]], dict[str, torch.Tensor]]:
    """``collate`` for batches that the sampler filled up with None.

    A batch without rows becomes ``some`` row without labels: it adds nothing, but its process must keep step.
    """

    def collated(examples: Sequence["TokenizedRow | None"]) -> dict[str, torch.Tensor]:
        rows = [example for example in examples if example is not None]
        if rows:
            return collate(rows)
        batch = collate([some])
        return batch | {"labels": torch.full_like(batch["labels"], -100)}

    return collated


def place(arguments: Any, device: torch.device) -> None:
    """Let Trainer use the model's GPU: by itself it takes the first, whatever the plan says."""
    if device.type == "cuda" and distributed.processes() == 1:
        arguments.distributed_state.device = device
        vars(arguments)["_setup_devices"] = device
        torch.cuda.set_device(device)


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trainable weights by name, for ``save_file``; tied ones once. With shards, all processes must call this."""
    named = model.named_parameters()
    return {name: full_tensor(each).detach().contiguous() for name, each in named if each.requires_grad}


def put_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy what ``trainable_weights`` returned into the model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
