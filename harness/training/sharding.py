"""What a strategy of ``trainer.parallel`` does to training: DDP, FSDP2 and DeepSpeed on transformers' Trainer.

Where weights are cut into shards, a copy of the model trains, and ``subject`` brings the result home, so that
everything after training sees a whole model.
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

# Accelerate hands its choices on by these, within a process too: the next run of it must not inherit them.
SWITCHES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION", "FSDP_CPU_RAM_EFFICIENT_LOADING")


def arguments(settings: schema.Parallel) -> dict[str, Any]:
    """The part of ``TrainingArguments`` that the strategy is."""
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
    """Let FSDP work on CPUs, where Accelerate knows only DDP; whether it had to be told.

    Its code for FSDP2 is the same on both: it only never gets there.
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
    """Raise RunFault where Accelerate has settled on something else than the plan says, e.g. by its environment."""
    found = str(accelerator.distributed_type.value)
    wanted = {
        Strategy.none: ("NO",),
        Strategy.ddp: ("MULTI_CPU", "MULTI_GPU"),
        Strategy.fsdp: ("FSDP",),
        Strategy.deepspeed: ("DEEPSPEED",),
    }[strategy]
    if found not in wanted:
        raise RunFault(
            f"trainer.parallel.strategy={strategy.value}, but Accelerate trains by {found}; start without options of "
            "its own (accelerate launch --use_fsdp, --use_deepspeed), for trainer/parallel holds them"
        )


@contextmanager
def subject(model: "PeftModel", settings: schema.Parallel, idle: Sequence[nn.Module] = ()) -> "Iterator[PeftModel]":
    """The model to train: itself, or where the strategy cuts weights up a copy, whose end ``model`` then takes over.

    Args:
        idle: other models over the same weights.
    """
    before = {name: os.environ.get(name) for name in SWITCHES}
    try:
        if not schema.shards(settings.strategy, settings.deepspeed):
            yield model
            return
        with parked([model, *idle]):
            cut = _copy(model)
            yield cut
            _take_back(model, cut)
    finally:
        if settings.strategy is Strategy.deepspeed:
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()  # else loading and generating would still wait for all processes
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _copy(model: "PeftModel") -> "PeftModel":
    """A module tree of its own over the same storage."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _take_back(model: "PeftModel", trained: "PeftModel") -> None:
    """Give ``model`` the weights that its copy ends with; all processes take part."""
    homes, buffers = dict(model.named_parameters()), dict(trained.named_buffers())
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad:
                homes[name].copy_(full_tensor(parameter))
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


@contextmanager
def parked(models: Sequence[nn.Module]) -> Iterator[None]:
    """Whole weights wait in the machine's memory, so that a GPU holds nothing but shards of them.

    Weights that share storage do so still, there and when they are back.
    """
    parameters = [parameter for model in models for parameter in model.parameters()]
    devices = [parameter.device for parameter in parameters]
    if any(device.type != "cpu" for device in devices):
        _move(parameters, [torch.device("cpu")] * len(parameters))
    try:
        yield
    finally:
        if any(device.type != "cpu" for device in devices):
            _move(parameters, devices)


def _move(parameters: Sequence[nn.Parameter], devices: Sequence[torch.device]) -> None:
    moved: dict[tuple[Any, ...], torch.Tensor] = {}
    kept = [parameter.data for parameter in parameters]  # until all are moved: a freed place may be given out again
    for parameter, data, device in zip(parameters, kept, devices, strict=True):
        key = (data.data_ptr(), data.shape, data.stride(), data.dtype)
        if key not in moved:
            moved[key] = data.to(device, copy=True)
        parameter.data = moved[key]


def is_sharded(model: nn.Module) -> bool:
    """Whether no process has the whole of the weights."""
    return any(hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in model.parameters())


def full_tensor(parameter: torch.Tensor) -> torch.Tensor:
    """All of a weight; where it is cut, all processes must ask for it."""
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
    """``collate`` for batches that the sampler filled up with no rows.

    A batch without any is one of ``some`` row with no label: it adds nothing, but its process must keep step.
    """

    def collated(examples: Sequence["TokenizedRow | None"]) -> dict[str, torch.Tensor]:
        rows = [example for example in examples if example is not None]
        if rows:
            return collate(rows)
        batch = collate([some])
        return batch | {"labels": torch.full_like(batch["labels"], -100)}

    return collated


def place(arguments: Any, device: torch.device) -> None:
    """Let Trainer work on the model's GPU: left alone it takes the first, whatever the plan says."""
    if device.type == "cuda" and distributed.processes() == 1:
        arguments.distributed_state.device = device
        vars(arguments)["_setup_devices"] = device
        torch.cuda.set_device(device)


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that train, by name, for ``save_file``; tied ones once. All processes must ask for shards."""
    named = model.named_parameters()
    return {name: full_tensor(each).detach().contiguous() for name, each in named if each.requires_grad}


def put_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy what ``trainable`` gave back into the model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
