"""What can be asked of a model whether or not PEFT has put an adapter around it."""

from typing import Any


def base_network(model: Any) -> Any:
    """The transformers model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_sharded(model: Any) -> bool:
    """Whether no process has all of the weights."""
    return any(hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in model.parameters())
