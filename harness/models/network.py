"""What can be asked of a model whether or not PEFT has put an adapter around it."""

from typing import Any

HIDDEN_KEPT, INNER_KEPT = 10, 4


def base_network(model: Any) -> Any:
    """The transformers model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_sharded(model: Any) -> bool:
    """Whether no process has all of the weights."""
    return any(hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in model.parameters())


def is_whole(weight: Any) -> bool:
    """Whether a weight is neither sharded nor packed. The weights without numbers of a memory forecast are whole."""
    from torch import nn

    return type(weight) is nn.Parameter or type(weight).__name__ == "FakeTensor"


def checkpoint_layers(model: Any, **settings: Any) -> None:
    """Compute each layer once more in the backward pass instead of keeping what it made; ``settings``: torch's.

    Reentrant checkpointing would need gradients of the embeddings, for which transformers asks; here they would only
    draw the backward pass down through layers below the lowest weight that trains.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, **settings})
    base_network(model).disable_input_require_grads()


def kept_numbers(config: Any) -> int:
    """Numbers that a pass keeps for its backward pass, for each token: a rough count from the sizes of the layers.

    In each layer, in units of the hidden and of the inner size: inputs of the norms and of the adapters, queries, keys,
    values and output of attention; gate, up projection, their product. tests/estimate/test_packing.py holds them
    against what torch keeps.
    """
    text = config.get_text_config()
    hidden = int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    return int(text.num_hidden_layers) * (HIDDEN_KEPT * hidden + INNER_KEPT * inner)
