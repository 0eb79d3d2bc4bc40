"""The weights of a finished adapter put into a new one of the same shape, from which training begins."""

import warnings
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault, first_line
from harness.plan.continuation import KEY, Source, config_faults

if TYPE_CHECKING:
    from peft import PeftModel


def begin_with(model: "PeftModel", source: Source) -> None:
    """Put the source's weights into ``model``, whose method is attached and not yet trained.

    Raises:
        ModelFault: the adapter has another shape, or its file does not hold all weights that train.
    """
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    start = f"{KEY}={source.adapter.name}"
    config: Any = model.peft_config[str(model.active_adapter)]
    if faults := config_faults(source, config):
        raise ModelFault(f"{start} was trained with {'; with '.join(faults)}; use the same settings")
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(source.adapter.folder.glob("adapter_*.safetensors")):
        weights |= load_file(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PEFT, about what is compared below
            set_peft_model_state_dict(model, dict(weights), adapter_name=str(model.active_adapter))
            found = get_peft_model_state_dict(model, adapter_name=str(model.active_adapter))
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise ModelFault(f"{start} has another shape than this plan's adapter ({first_line(error)})") from error
    if other := sorted(weights.keys() ^ found.keys()):
        which = "does not hold" if other[0] in found else "holds weights that this plan's adapter lacks:"
        raise ModelFault(f"{start} {which} {other[0]}{' and others' if other[1:] else ''}; use the same settings")
    for name, weight in weights.items():
        if not torch.equal(found[name].to(weight.device, weight.dtype), weight):
            raise ModelFault(
                f"{start}: its weights {name} change when a new adapter loads them, so training cannot begin with "
                "them; train from scratch"
            )
