"""Tokens and seconds of training, for the record and for the speed that is shown."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from harness.runtime import distributed


class TokenCounter:
    """Counts the tokens that pass through the model, on its device, so that counting never waits for it."""

    def __init__(self, device: torch.device, labels_are_text: bool = True) -> None:
        """``labels_are_text``: each label is the text's own token at its position; the lesson's are not."""
        self._counts = torch.zeros(3, dtype=torch.long, device=device)
        self._labels_are_text = labels_are_text

    def add(self, inputs: dict[str, torch.Tensor], padded: bool = True) -> None:
        """Count one batch of ``input_ids``, ``attention_mask`` and ``labels``, each of shape (b, t).

        Args:
            padded: whether the model reads the padding.
        """
        present = inputs["attention_mask"].sum()
        supervised = (inputs["labels"][:, 1:] != -100).sum()  # nothing predicts the first token
        present = present * (supervised > 0)  # a batch without rows, which only keeps step with the other processes
        padding = (inputs["attention_mask"].numel() - present) * padded
        self._counts += torch.stack((supervised, present, padding)).to(self._counts.device)

    def counts(self) -> dict[str, int]:
        """Supervised, prompt and padding tokens so far, of all processes."""
        supervised, present, padding = self.state()
        prompt = present - supervised if self._labels_are_text else present
        return {"supervised_tokens": supervised, "prompt_tokens": prompt, "padding_tokens": padding}

    def state(self) -> list[int]:
        """For a checkpoint: supervised, present and padding tokens of all processes; all of them must call this."""
        everywhere = distributed.gather([int(each) for each in self._counts.tolist()])
        return [sum(each) for each in zip(*everywhere, strict=True)]

    def load(self, state: Sequence[int]) -> None:
        """Restore what ``state`` gave; the main process holds the counts of all."""
        self._counts.copy_(torch.tensor(state) if distributed.is_main_process() else torch.zeros(3))

    @property
    def text_tokens(self) -> int:
        """Tokens of text that the model has read so far, without padding.

        An estimate with several processes: the others have read about as many as this one.
        """
        return int(self._counts[1]) * distributed.processes()


class StepTimer(TrainerCallback):
    """Seconds spent in optimizer steps only."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    def exclude(self, seconds: float) -> None:
        """Leave out seconds of the present step in which the run waited for others."""
        self._since += seconds

    # Not on_step_end: validation and saving, which run then, are not part of the step.
    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._since
