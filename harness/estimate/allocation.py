"""Which tensors a computation holds at its peak, found by running it on shapes alone.

Every operation is dispatched as on a CPU, with autocast, hooks and written-out passes; only the numbers are missing.
"""

import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode


# Operations that hold as much as their input while they run: exponentials before they are summed.
COPIES_INSIDE = (torch.ops.aten.logsumexp,)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is active, by what they are for, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, int] = defaultdict(int)
        self.peak: dict[str, int] = {}
        self.kind = "activations"  # of what is made next
        self._kinds: dict[int, str] = {}  # of storages that are alive, by their identity
        self._known: set[int] = set()  # storages that were there before

    def ignore(self, tensors: Iterator[torch.Tensor]) -> None:
        """These were there before."""
        self._known |= {_identity(tensor) for tensor in tensors}

    @contextmanager
    def making(self, kind: str) -> Iterator[None]:
        """What is made meanwhile is of this kind."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before

    def relabel(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor that is there as of another kind."""
        key = _identity(tensor)
        size = tensor.untyped_storage().nbytes()
        if key in self._kinds:
            self.live[self._kinds[key]] -= size
            self.live[kind] += size
            self._kinds[key] = kind

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        if func.overloadpacket in COPIES_INSIDE:
            self._note_peak(args[0].nbytes)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kinds or key in self._known:
            return
        size = storage.nbytes()
        self._kinds[key] = self.kind
        self.live[self.kind] += size
        weakref.finalize(storage, self._free, key, size)
        self._note_peak()

    def _note_peak(self, inside: int = 0) -> None:
        """Args: inside: bytes that an operation holds besides its inputs and outputs, while it runs."""
        if sum(self.live.values()) + inside > sum(self.peak.values()):
            self.peak = dict(self.live)
            self.peak[self.kind] = self.peak.get(self.kind, 0) + inside

    def _free(self, key: int, size: int) -> None:
        kind = self._kinds.pop(key, None)
        if kind is not None:
            self.live[kind] -= size


def _identity(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def most_allocated(seen: torch.profiler.profile) -> int:
    """The most bytes at once that a pass with numbers has allocated, above those that were there before.

    Args:
        seen: of a profile of the CPU with ``profile_memory``.
    """
    results: Any = seen.profiler.kineto_results  # type: ignore[union-attr]
    changes = [event for event in results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())))


def without_numbers(model: nn.Module, mode: "FakeTensorMode", dtype_of: Any) -> None:
    """Replace the meta tensors of a model by such as claim to be on a CPU; tied ones stay tied.

    Args:
        dtype_of: from a name and a parameter or buffer to the type that it gets.
    """
    made: dict[int, torch.Tensor] = {}

    def replaced(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            dtype = dtype_of(name, tensor)
            with mode:
                new = torch.empty(tensor.shape, dtype=dtype, device="cpu")
            trains = tensor.requires_grad
            made[id(tensor)] = nn.Parameter(new, trains) if isinstance(tensor, nn.Parameter) else new
        return made[id(tensor)]

    for prefix, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = replaced(f"{prefix}.{name}", tensor)
