"""The loop itself: transformers' Trainer with this project's order of rows, losses and checkpoints."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerState

from harness import checkpoints, parallel, resume, sharding, tokens
from harness.checkpoints import Keeping
from harness.errors import RunFault

if TYPE_CHECKING:
    from harness.teachers import Teacher

MEGABATCH = 8  # optimizer steps whose rows are sorted by length together
PENALTIES = ("orth_reg_weight", "l0_weight")  # weights of what AdaLoRA and diff pruning add to the loss


class Loop(Trainer):
    """Trainer that orders rows by like length, counts tokens and stops at a loss that is not finite.

    Its checkpoints are ours: whole or absent, and of the weights that train alone.
    """

    def __init__(
        self,
        *args: Any,
        optimizer: Any,
        gathered: resume.Gathered,
        keeping: Keeping | None,
        teacher: "Teacher | None",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        rows: Any = self.train_dataset
        lengths = [len(example.input_ids) for example in rows if example is not None]
        at_once = self.args.train_batch_size * parallel.processes()
        self._sampler = LengthSampler(
            lengths,
            at_once * self.args.gradient_accumulation_steps,
            self.args.seed,
            at_once if parallel.processes() > 1 else 1,
        )
        self.optimizer = optimizer  # not as an argument, which Trainer refuses where it shards
        self._tally, self._gathered, self._keeping, self._teacher = gathered.tally, gathered, keeping, teacher
        if _brings_its_loss(self.model):
            self.model_accepts_loss_kwargs = False  # it never sees the number of tokens to divide by

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from there to the end; from the end itself, only bring its weights and figures back."""
        if checkpoint is None:
            self.train()
            return
        values = self._gathered.read(checkpoint)
        if resume.is_done(checkpoint):
            resume.read_model(self.model, checkpoint)
            self.state = TrainerState.load_from_json(str(checkpoint / resume.TRAINER_STATE))
            return
        # Accelerate does not pass the epoch on through the sampler that skips, where several processes share it.
        self._sampler.set_epoch(checkpoints.step_of(checkpoint) // self._sampler.steps)
        self.add_callback(resume.Losses(self, values))
        self.train(resume_from_checkpoint=str(checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self._keeping is not None
        step = self.state.global_step
        if self.args.process_index == 0:
            checkpoints.save(self._keeping, step, self._write_together)
        else:
            self._write_together(checkpoints.partial(self._keeping, step))

    def _write_together(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()  # the folder is there
        resume.write(self, self._gathered, folder)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        resume.read_model(self.model, Path(resume_from_checkpoint))

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled |= sharding.settle(self.accelerator, self.args.fsdp_plugin_args)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        # Loading puts moments beside their parameters; LoRA-FA's optimizer keeps them under names instead.
        optimizer: Any = self.optimizer
        for key, values in optimizer.state.items():
            for name, value in values.items() if isinstance(key, str) else ():
                if isinstance(value, torch.Tensor):
                    values[name] = value.to(self.args.device)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """With a teacher, a share of the cross-entropy gives way to the teacher's term; penalties stay."""
        if self._teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        from harness import teachers

        given = dict(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        divergence, cross_entropy = teachers.term(self._teacher, outputs.logits, given)
        alone = num_items_in_batch is None or not self.model_accepts_loss_kwargs
        tokens_in_step = (given["labels"][:, 1:] != tokens.IGNORED).sum() if alone else num_items_in_batch
        shared = 1 if alone else parallel.processes()  # gradients are averaged over processes, not summed
        loss = loss + shared * self._teacher.weight * (divergence - cross_entropy) / tokens_in_step
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._tally.add(inputs)
        batches = self.current_gradient_accumulation_steps * parallel.processes()
        shares = batches if self.model_accepts_loss_kwargs else 1
        with _penalty_shared(self.model, shares):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if not parallel.every(bool(torch.isfinite(loss))):
            first = inputs["input_ids"][0][:12].tolist()
            raise RunFault(
                f"the loss became {loss.item()} at optimizer step {self.state.global_step + 1}, in a batch of "
                f"{inputs['input_ids'].shape[0]} rows whose first begins with tokens {first}; lower "
                "trainer.learning_rate, raise trainer.warmup_share, or use model.dtype=float32"
            )
        return loss


class LengthSampler(Sampler[int]):
    """Row numbers, shuffled anew each epoch by seed and epoch alone, with neighbours of like length.

    Rows are shuffled, sorted by length within stretches of ``MEGABATCH`` steps, cut into the rows of one
    optimizer step each, and these shuffled: little padding, and an order that needs no stored state to be
    resumed. The unit is the step, so that accumulating smaller batches, or sharing them among processes, trains
    on the same rows. ``together``: rows that all processes take at once; a short step is filled up to a multiple
    with -1, which stands for no row.
    """

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int, together: int = 1) -> None:
        self._lengths, self._batch, self._seed, self._epoch = lengths, rows_per_step, seed, 0
        self._filling = -len(lengths) % together

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self._lengths) / self._batch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._lengths) + self._filling

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        stretch = self._batch * MEGABATCH
        batches: list[list[int]] = []
        for start in range(0, len(order), stretch):
            rows = sorted(order[start : start + stretch], key=lambda row: self._lengths[row], reverse=True)
            batches += [rows[at : at + self._batch] for at in range(0, len(rows), self._batch)]
        # A short step stays last: DataLoader cuts the flat order by number alone.
        full = [batch for batch in batches if len(batch) == self._batch]
        short = [batch for batch in batches if len(batch) < self._batch]
        for index in torch.randperm(len(full), generator=generator).tolist():
            yield from full[index]
        for batch in short:
            yield from batch
        yield from [-1] * self._filling


def _brings_its_loss(model: Any) -> bool:
    """Whether the method computes a training loss of its own (CPT), always the mean over one batch."""
    return model.peft_config[str(model.active_adapter)].peft_type == "CPT"


@contextmanager
def _penalty_shared(model: Any, batches: int) -> Iterator[None]:
    """Let the penalties that a method adds to each batch's loss make one penalty an optimizer step.

    The loss of each of ``batches`` accumulated batches is divided by the step's tokens inside the model, but
    what a method adds after that is not divided, and would grow with the accumulation.
    """
    config = model.peft_config[str(model.active_adapter)]
    kept = {name: getattr(config, name) for name in PENALTIES if hasattr(config, name)}
    vars(config).update({name: weight / batches for name, weight in kept.items()})
    try:
        yield
    finally:
        vars(config).update(kept)
