"""Which device and precision a model runs on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from harness.config.schema import DType, Model
from harness.errors import ModelFault
from harness.runtime import distributed


def base_precision(model: Any) -> AbstractContextManager[Any]:
    """Autocast to the precision that the base was loaded in, for scoring as in training.

    Trainable weights are float32 on any base. Without this, full fine-tuning of a bfloat16 base would be scored
    in float32, unlike its baseline, and float32 norms could not feed bfloat16 layers.
    """
    dtype = model.config.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(next(model.parameters()).device.type, dtype=dtype) if half else nullcontext()


def pick_device(model: Model) -> torch.device:
    """The device that ``model.device`` names; auto: a GPU if there is one, else the CPU.

    Raises:
        ModelFault: there is no such device here, or ``model.device_map`` is set too.
    """
    if model.device_map is not None and model.device != "auto":
        raise ModelFault(
            f"model.device={model.device} and model.device_map={model.device_map} contradict each other; "
            "set model.device=auto, or model.device_map=null"
        )
    if model.device == "auto":
        return torch.device(f"cuda:{distributed.local_rank()}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(model.device)
    except RuntimeError as error:
        raise ModelFault(f"model.device={model.device} is not a device; use auto, cpu, cuda or cuda:1") from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type == "cuda" and device.index is None and present["cuda"]:
        device = torch.device("cuda", distributed.local_rank())
    if (device.index or 0) >= present.get(device.type, 0):
        found = ", ".join(f"{count} {kind}" for kind, count in present.items() if count)
        raise ModelFault(f"model.device={model.device} is not on this machine (found: {found}); set model.device=auto")
    return device


def pick_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """Torch's type for the setting; auto: float32 on a CPU, bfloat16 on a GPU that supports it, else float16."""
    if dtype is not DType.auto:
        return getattr(torch, dtype.value)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32
