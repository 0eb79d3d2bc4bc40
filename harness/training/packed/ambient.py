"""What a process has once and each run of a pack needs as its own; put in place whenever the run continues."""

import random
from typing import Any

import torch

from harness.runtime import signals


class Ambient:
    """The state of one run while others have their turn: random states, Accelerate's globals, deferral of signals.

    Attributes:
        cpu: torch's random state on the CPU; dropout of a pass that others compute is drawn from it.
        gpu: likewise on the present GPU; None without one.
        threads: with which it computes; a run that is resumed keeps those with which it began.
        deferring: whether a first signal waits for the run's next checkpoint.
    """

    cpu: torch.Tensor
    gpu: torch.Tensor | None
    threads: int
    deferring: bool

    def __init__(self) -> None:
        self.leave()
        self.deferring = False

    def leave(self) -> None:
        """Keep the state of the process as this run's."""
        import numpy
        from accelerate.state import GradientState

        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state() if _gpu_in_use() else None
        self.threads = torch.get_num_threads()
        self.deferring = signals.exchange_deferral(False)
        self._random, self._numpy = random.getstate(), numpy.random.get_state()
        self._gradients: dict[str, Any] = dict(GradientState._shared_state)

    def enter(self) -> None:
        """Make the run's state that of the process."""
        import numpy
        from accelerate.state import GradientState

        self.use_threads()
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)
        random.setstate(self._random)
        numpy.random.set_state(self._numpy)
        GradientState._shared_state.clear()
        GradientState._shared_state.update(self._gradients)
        signals.exchange_deferral(self.deferring)

    def use_threads(self) -> None:
        """Compute with the run's threads."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def generator(self, device: torch.device) -> torch.Generator:
        """A generator at the run's random state on that device."""
        made = torch.Generator(device)
        state = self.cpu if device.type == "cpu" else self.gpu
        assert state is not None
        made.set_state(state)
        return made

    def advance(self, generator: torch.Generator) -> None:
        """Keep the generator's state as the run's."""
        if generator.device.type == "cpu":
            self.cpu = generator.get_state()
        else:
            self.gpu = generator.get_state()


def _gpu_in_use() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
