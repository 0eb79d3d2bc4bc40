"""Layers below the lowest weight that trains, computed once for each row of text and reused over the epochs.

What they give for a row does not change while nothing in or below them trains: ``partial`` trains the last layers,
``lora.layers_to_transform`` the ones that it names. From the second epoch on such a training computes no more than the
layers above them, as in feature extraction from a frozen trunk.

Each row is computed by itself. So its hidden states have the same bits whenever they are computed: a training that
resumes with nothing kept, or that has no room to keep more, ends with the bits of one that keeps everything.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from harness.models.network import base_network

KEPT_BYTES = 512 << 20  # of hidden states, at most


class FrozenLayers:
    """The lowest layers of a model, and what they gave for the rows that were passed.

    Serves batches that ``joined_rows`` has joined. Hidden states are on the model's device, in its precision:
    tokens x hidden size numbers for a row.
    """

    def __init__(self, model: nn.Module, layers: int, most_bytes: int = KEPT_BYTES) -> None:
        """``layers``: how many; see ``frozen_below``."""
        self._trunk: Any = base_network(model).base_model
        self._below: list[nn.Module] = [*self._trunk.layers[:layers]]
        self._above: list[nn.Module] = [*self._trunk.layers[layers:]]
        self._most_bytes = most_bytes
        self._kept: dict[bytes, torch.Tensor] = {}
        self.kept_bytes = 0
        self.computed = 0  # rows, as often as each was

    @contextmanager
    def given(self, batch: dict[str, Any]) -> Iterator[None]:
        """While this is open, a forward pass over this joined batch begins above these layers."""
        hidden = torch.cat(self.learn(batch))[None]
        first, *others = self._below
        with ExitStack() as stack:
            stack.enter_context(_instead(first, lambda *_, **__: hidden))
            for layer in others:
                stack.enter_context(_instead(layer, _unchanged))
            yield

    def learn(self, batch: dict[str, Any]) -> list[torch.Tensor]:
        """What reaches the first layer above, for each row of a joined batch: (tokens, hidden size)."""
        return [self._of_row(row) for row in batch["input_ids"][0].split(batch["row_lengths"])]

    def _of_row(self, row: torch.Tensor) -> torch.Tensor:
        key = row.cpu().numpy().tobytes()
        if key in self._kept:
            return self._kept[key]
        hidden = self._compute(row)
        if self.kept_bytes + hidden.nbytes <= self._most_bytes:
            self._kept[key] = hidden
            self.kept_bytes += hidden.nbytes
        return hidden

    def _compute(self, row: torch.Tensor) -> torch.Tensor:
        self.computed += 1
        seen: list[torch.Tensor] = []

        def look(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            seen.append(hidden[0])
            return hidden

        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            first, *others = self._above
            stack.enter_context(_instead(first, look))
            for layer in others:
                stack.enter_context(_instead(layer, _unchanged))
            positions = torch.arange(len(row), device=row.device)[None]
            self._trunk(
                input_ids=row[None], position_ids=positions, row_lengths=[len(row)], use_cache=False
            )  # as ``joined_rows`` passes them
        return seen[0]


def frozen_below(model: nn.Module) -> int:
    """How many of the lowest layers, with all that comes before them, have no weight that trains.

    0 where any weight trains that is neither in a layer nor after the layers (embeddings, prompts, weights that layers
    share), and where the model is not built as a list of ``layers``.
    """
    network = base_network(model)
    layers = getattr(network.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return 0
    trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
    by_layer = [trained & {id(weight) for weight in layer.parameters()} for layer in layers]
    before = {id(weight) for weight in network.get_input_embeddings().parameters()}
    after = {id(weight) for module in _after(network) for weight in module.parameters()} - before
    if trained - set().union(*by_layer) - after:
        return 0
    lowest = [number for number, weights in enumerate(by_layer) if weights]
    # Above must be one layer at least: the one that is asked for what has reached it.
    return min([*lowest, len(layers) - 1])


def _after(network: Any) -> Iterator[nn.Module]:
    """What a model has above its layers: the last norm and the output head."""
    for name in ("norm", "final_layer_norm"):
        if (module := getattr(network.base_model, name, None)) is not None:
            yield module
    if (head := network.get_output_embeddings()) is not None:
        yield head


def _unchanged(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Another forward pass of this module."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
