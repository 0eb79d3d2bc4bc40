"""What PEFT leaves to its caller or decides silently: each function says what, and why it matters."""

import dataclasses
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig, PeftModel


IN_PLACE = ("c3a", "gralora", "poly")  # packages of PEFT's tuners that add to a layer's output in place


def unknown_fields(folder: "Path") -> list[str]:
    """Fields of a saved configuration that this PEFT lacks, all of them null or empty: another version wrote it.

    Raises:
        ModelFault: one of them says something, which PEFT would ignore.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    kind: Any = PEFT_TYPE_TO_CONFIG_MAPPING.get(saved.get("peft_type"))
    known = {each.name for each in dataclasses.fields(kind)} | {"auto_mapping"} if kind else set(saved)
    strange = [key for key in saved if key not in known]
    telling = {key: saved[key] for key in strange if saved[key] not in (None, False, "", [], {})}
    if telling:
        key, value = next(iter(telling.items()))
        raise ModelFault(
            f"{folder / 'adapter_config.json'}: {key}={value} is unknown to the installed PEFT (written by "
            f"{saved.get('peft_version', 'another version')}), which would ignore it; install that version"
        )
    return strange


@contextmanager
def around_wrapping(config: "PeftConfig", on_meta: bool) -> Iterator[None]:
    """Context in which PEFT makes the adapter's layers, for a new and for a loaded model.

    Raises:
        ModelFault: BOFT needs a kernel that is not here.
    """
    support_llama_adapters_on_qwen2()
    keep_int8_scales()
    load_boft_kernel(config)
    if on_meta and hasattr(config, "mask_fn"):
        config.mask_fn = None  # SHiRA's mask: its size is known, but its positions need weights
    with warnings.catch_warnings():
        # LN tuning and IA3 warn for every norm that it is not a linear layer.
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        # GPT-2's Conv1D: PEFT corrects the setting itself; it follows from the layer.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        yield


def after_wrapping(model: "PeftModel", on_meta: bool) -> "PeftModel":
    """Make trainable weights float32, then ``fix_calls``."""
    for name, parameter in model.named_parameters():
        if on_meta and ".ranknum." in name:
            parameter.requires_grad_(False)  # AdaLoRA's counter, whose flag is lost on the meta device
        if parameter.requires_grad and parameter.dtype.is_floating_point and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
    return fix_calls(model)


def fix_calls(model: "PeftModel") -> "PeftModel":
    """Add the hooks that a PEFT model needs before it is called, whether new or loaded."""
    return copy_quantized_outputs(use_one_task(model))


def use_one_task(model: "PeftModel") -> "PeftModel":
    """Give every row the first task: Poly and multitask prompt tuning expect task ids with each batch."""
    import torch
    from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
    from peft.tuners.poly.router import Router

    def first_task(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(module, Router):
            rows = kwargs["input_ids"]  # the layer's input, (b, t, d)
            return args, kwargs | {"task_ids": torch.zeros(len(rows), dtype=torch.long, device=rows.device)}
        return (args[0], torch.zeros(len(args[0]), dtype=torch.long, device=args[0].device)), {}

    for module in model.modules():
        if isinstance(module, Router | MultitaskPromptEmbedding):
            module.register_forward_pre_hook(first_task, with_kwargs=True)
    return model


def copy_quantized_outputs(model: "PeftModel") -> "PeftModel":
    """Copy the outputs of quantized layers, for types that add to them in place.

    bitsandbytes returns views, which autograd does not allow to be modified: for 8 bits on a GPU, otherwise for layers
    with a bias.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    def copied(module: Any, args: Any, output: Any) -> Any:
        return output.clone()

    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and type(module).__module__.split(".")[-2] in IN_PLACE:
            base = module.get_base_layer()
            if type(base).__name__ in ("Linear4bit", "Linear8bitLt"):
                base.register_forward_hook(copied)
    return model


def keep_int8_scales() -> None:
    """Let DoRA read 8-bit weights on the CPU without losing their scales.

    PEFT dequantizes a weight by making its parameter again, without the scales that the first call moved to the layer,
    and the layer's next call would use the missing ones. Patches ``peft.tuners.lora.dora``.
    """
    from peft.tuners.lora import dora
    from peft.utils.integrations import dequantize_module_weight

    def dequantize(module: Any) -> Any:
        weight = dequantize_module_weight(module)
        if type(module.weight).__name__ == "Int8Params" and module.weight.SCB is None:
            module.weight.CB = None  # the layer's own state holds both
        return weight

    patched: Any = dora
    patched.dequantize_module_weight = dequantize


def support_llama_adapters_on_qwen2() -> None:
    """Register LLaMA-Adapter for Qwen2, whose attention is Llama's with biases; PEFT lists llama, mistral and gpt2."""
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG

    TRANSFORMERS_MODEL_CONFIG.setdefault("qwen2", TRANSFORMERS_MODEL_CONFIG["llama"])


def load_boft_kernel(config: Any) -> None:
    """Load BOFT's CUDA kernel only if it is needed, and refuse to continue if PEFT would drop butterfly factors.

    PEFT would compile it at the first layer, which fails with torch 2.11; a single factor works without it.

    Raises:
        ModelFault: there is more than one factor and no kernel.
    """
    if not hasattr(config, "boft_n_butterfly_factor"):
        return
    import torch
    from peft.tuners.boft import layer as boft

    layer: Any = boft
    several = config.boft_n_butterfly_factor > 1
    layer._FBD_CUDA = (
        several and torch.cuda.is_available() and layer.get_fbd_cuda()
    ) or False  # False: PEFT does not try again
    if several and not layer._FBD_CUDA:
        raise ModelFault(
            f"boft.boft_n_butterfly_factor={config.boft_n_butterfly_factor} needs PEFT's CUDA kernel (a GPU, nvcc and "
            "ninja), without which PEFT would train one factor; set boft.boft_n_butterfly_factor=1"
        )
