"""What PEFT leaves to its caller, or decides without a word: each function says what and why."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel


@contextmanager
def around_wrapping(config: "PeftConfig", on_meta: bool) -> Iterator[None]:
    """What must hold while PEFT makes the adapter's layers."""
    with_llama_adapters()
    with_int8_scales()
    settle_boft(config)
    if on_meta and hasattr(config, "mask_fn"):
        config.mask_fn = None  # SHiRA's places: their number is known, where they are needs weights
    with warnings.catch_warnings():
        # LN tuning and IA3 are told of every norm that it is no linear layer.
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        # GPT-2's Conv1D: PEFT corrects the setting itself, which follows from the layer.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        yield


def after_wrapping(model: "PeftModel", on_meta: bool) -> "PeftModel":
    """Trainable weights in float32; one task for methods that ask which."""
    for name, parameter in model.named_parameters():
        if on_meta and ".ranknum." in name:
            parameter.requires_grad_(False)  # AdaLoRA's counter, which loses its flag on the meta device
        if parameter.requires_grad and parameter.dtype.is_floating_point and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
    return settled(model)


def settled(model: "PeftModel") -> "PeftModel":
    """What a model of PEFT's needs once it is made, whether new or loaded."""
    return with_own_outputs(with_one_task(model))


def with_one_task(model: "PeftModel") -> "PeftModel":
    """Poly and multitask prompt tuning ask each batch for its tasks; here there is one."""
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


def with_own_outputs(model: "PeftModel") -> "PeftModel":
    """Outputs of quantised layers as tensors of their own, for types that add to them in place.

    bitsandbytes returns views, which autograd lets nobody write into: of 8 bits on a GPU, elsewhere with a bias.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    def own(module: Any, args: Any, output: Any) -> Any:
        return output.clone()

    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and type(module).__module__.split(".")[-2] in IN_PLACE:
            base = module.get_base_layer()
            if type(base).__name__ in ("Linear4bit", "Linear8bitLt"):
                base.register_forward_hook(own)
    return model


IN_PLACE = ("c3a", "gralora", "poly")  # packages of PEFT's tuners


def with_int8_scales() -> None:
    """DoRA over a base in 8 bits on the CPU: PEFT's look at a weight that was used before would lose its scales.

    It makes the parameter anew, without the scales that the first call moved to the layer; the next call then
    takes the empty place for the truth.
    """
    from peft.tuners.lora import dora
    from peft.utils.integrations import dequantize_module_weight

    def look(module: Any) -> Any:
        numbers = dequantize_module_weight(module)
        if type(module.weight).__name__ == "Int8Params" and module.weight.SCB is None:
            module.weight.CB = None  # the layer's own state holds both
        return numbers

    places: Any = dora
    places.dequantize_module_weight = look


def with_llama_adapters() -> None:
    """LLaMA-Adapter on Qwen2, whose attention is Llama's with biases; PEFT lists only llama, mistral and gpt2."""
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG

    TRANSFORMERS_MODEL_CONFIG.setdefault("qwen2", TRANSFORMERS_MODEL_CONFIG["llama"])


def settle_boft(config: Any) -> None:
    """Look for BOFT's CUDA kernel once, and where it is needed; refuse where PEFT would drop butterfly factors.

    PEFT would compile it at the first layer, which fails with torch 2.11; one factor does without it.

    Raises:
        ModelFault: more than one factor, and no kernel.
    """
    if not hasattr(config, "boft_n_butterfly_factor"):
        return
    import torch
    from peft.tuners.boft import layer as boft

    layer: Any = boft
    several = config.boft_n_butterfly_factor > 1
    layer._FBD_CUDA = (several and torch.cuda.is_available() and layer.get_fbd_cuda()) or False  # False: not asked
    if several and not layer._FBD_CUDA:
        raise ModelFault(
            f"boft.boft_n_butterfly_factor={config.boft_n_butterfly_factor} needs PEFT's CUDA kernel (a GPU, nvcc and "
            "ninja), without which PEFT trains one factor; set boft.boft_n_butterfly_factor=1"
        )
