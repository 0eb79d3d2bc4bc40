"""transformers' Trainer with this project's order of rows, losses and checkpoints."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerState

from harness.data.sampler import LengthSampler
from harness.data.tokenize import IGNORED
from harness.errors import RunFault
from harness.methods.hooks import Hooks, adapter_of
from harness.models.network import is_sharded
from harness.runtime import distributed
from harness.training import checkpoints, sharding, state
from harness.training.checkpoints import CheckpointSettings
from harness.training.fused import head
from harness.training.fused.frozen import FrozenLayers, frozen_below
from harness.training.fused.head import fused_head
from harness.training.fused.rows import INPUTS, joined_rows, joins, tokens_at_once, why_padded
from harness.training.neftune import noisy_embeddings
from harness.training.preferences import Preferences, pairs_in
from harness.training.row_weights import WEIGHTS, weight_of, weighted_loss
from harness.tuners.select import decayed_names

if TYPE_CHECKING:
    from harness.training.distillation import Teacher
    from harness.training.packed.member import Member


class HarnessTrainer(Trainer):
    """Trainer that groups rows of similar length, counts tokens and stops at a loss that is not finite.

    Its checkpoints are complete or absent, and hold only the weights that train.
    """

    def __init__(
        self,
        *args: Any,
        optimizer: Any,
        hooks: Hooks,
        gathered: state.CallbackState,
        checkpoint: CheckpointSettings | None,
        teacher: "Teacher | None",
        member: "Member | None" = None,
        fused: bool = False,
        joined: bool = False,
        preferences: "Preferences | None" = None,
        neftune_alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        """``fused``: compute losses without all logits, where the model allows it; ``joined``: and without padding.

        ``neftune_alpha``: of the noise on embeddings; None: no noise.
        """
        super().__init__(*args, **kwargs)
        rows: Any = self.train_dataset
        lengths = [len(example.input_ids) for example in rows if example is not None]
        at_once = self.args.train_batch_size * distributed.processes()
        self._sampler = LengthSampler(
            lengths,
            at_once * self.args.gradient_accumulation_steps,
            self.args.seed,
            at_once if distributed.processes() > 1 else 1,
        )
        self.optimizer = optimizer  # not as an argument, which Trainer refuses when it shards
        self._gathered, self._checkpoint, self._teacher = gathered, checkpoint, teacher
        self._member, self._lengths = member, lengths
        self._alpha, self._preferences = neftune_alpha, preferences
        self._fused = fused and teacher is None and not hooks.own_loss
        self._alone = distributed.processes() == 1 and not is_sharded(self.model)
        network: Any = self.model
        self._joined = joined and self._fused and self._alone and _can_join(network)
        self._tokens_at_once = tokens_at_once(network) if self._joined else None
        self._frozen = self._frozen_layers(network)
        self.hooks = hooks
        if hooks.own_loss:
            self.model_accepts_loss_kwargs = False  # it never sees the number of tokens to divide by
        if preferences is not None:
            self.model_accepts_loss_kwargs = True  # a sum over pairs, divided by those of the whole step

    def _frozen_layers(self, network: Any) -> FrozenLayers | None:
        """What need not be computed again for a row that is passed again; None where nothing is."""
        passed = self.args.max_steps * self.args.train_batch_size * self.args.gradient_accumulation_steps
        if not self._joined or passed <= len(self._lengths) or self._alpha is not None or self._member is not None:
            return None
        layers = frozen_below(network)
        return FrozenLayers(network, layers) if layers else None

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from there to the end; from the end itself, only restore weights and figures."""
        if checkpoint is None:
            with self._quick_clearing():
                self.train()
            return
        if state.is_end_state(checkpoint):
            state.read_weights(self.model, self.hooks, checkpoint)
            self.read_figures(checkpoint)
            return
        values = self._gathered.read(checkpoint)
        # With several processes, Accelerate's skipping sampler does not pass the epoch on.
        self._sampler.set_epoch(checkpoints.step_of(checkpoint) // self._sampler.steps)
        self.add_callback(state.RestoreLosses(self, values))
        with self._quick_clearing():
            self.train(resume_from_checkpoint=str(checkpoint))

    @contextmanager
    def _quick_clearing(self) -> Iterator[None]:
        """Let the model clear gradients where there are any, instead of walking over all of its modules every step."""
        if not self._alone:
            yield
            return
        model: Any = self.model
        model.train()  # a new adapter says that it is in training while its base is not
        model.zero_grad = self._clear_gradients
        try:
            yield
        finally:
            del model.zero_grad

    def _clear_gradients(self, set_to_none: bool = True) -> None:
        optimizer: Any = self.optimizer
        optimizer.zero_grad(set_to_none)

    def read_figures(self, checkpoint: Path) -> None:
        """What training had done by then; the weights stay as they are."""
        self._gathered.read(checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / state.TRAINER_STATE))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self._checkpoint is not None
        step = self.state.global_step
        if self.args.process_index == 0:
            checkpoints.write_checkpoint(self._checkpoint, step, self._write_together)
        else:
            self._write_together(checkpoints.partial_folder(self._checkpoint, step))

    def _write_together(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()  # until the main process has made the folder
        state.write_state(self, self._gathered, folder)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state.read_weights(self.model, self.hooks, Path(resume_from_checkpoint))

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled |= sharding.settle_plugin(self.accelerator, self.args.fsdp_plugin_args)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        # Loading moves moments to their parameters' device; LoRA-FA's optimizer keeps them by name instead.
        optimizer: Any = self.optimizer
        for key, values in optimizer.state.items():
            for name, value in values.items() if isinstance(key, str) else ():
                if isinstance(value, torch.Tensor):
                    values[name] = value.to(self.args.device)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Weight decay spares biases and every norm."""
        return decayed_names(model)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """With noise and weights of rows; a teacher's term replaces part of the cross-entropy; penalties stay."""
        inputs = dict(inputs)
        weights = inputs.pop(WEIGHTS, None)
        network: Any = self.model
        with noisy_embeddings(network, self._alpha, inputs), weighted_loss(network, weights):
            return self._loss(model, inputs, return_outputs, num_items_in_batch)

    def _loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool, num_items_in_batch: Any) -> Any:
        if self._preferences is not None:
            return self._preferences.loss(model, inputs, num_items_in_batch)
        if self._teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        from harness.training import distillation

        batch = dict(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        divergence, cross_entropy = distillation.teacher_term(self._teacher, outputs.logits, batch)
        per_batch = num_items_in_batch is None or not self.model_accepts_loss_kwargs
        tokens_in_step = (batch["labels"][:, 1:] != IGNORED).sum() if per_batch else num_items_in_batch
        shared = 1 if per_batch else distributed.processes()  # gradients are averaged over processes, not summed
        loss = loss + shared * self._teacher.weight * (divergence - cross_entropy) / tokens_in_step
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """What the loss of a step is divided by: its labeled tokens, the sum of their weights, or its pairs."""
        if batch_samples and self._preferences is not None:
            return torch.tensor(pairs_in(batch_samples), device=device)
        if not batch_samples or WEIGHTS not in batch_samples[0] or not self.model_accepts_loss_kwargs:
            return super()._get_num_items_in_batch(batch_samples, device)
        total = weight_of(batch_samples).to(device)
        return self.accelerator.gather(total).sum() if self.args.world_size > 1 else total

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """With what preferences add to a point of the curve."""
        if self._preferences is not None and "loss" in logs:
            logs = {**logs, **self._preferences.figures()}
        super().log(logs, *args, **kwargs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._gathered.tokens.add(
            inputs, padded=self._member is not None or not self._joined or not joins(model, inputs)
        )
        batches = self.current_gradient_accumulation_steps * distributed.processes()
        shares = batches if self.model_accepts_loss_kwargs else 1
        with _shared_penalties(self.model, self.hooks, shares):
            loss = self._pass(model, inputs, num_items_in_batch)
        if not distributed.all_true(bool(torch.isfinite(loss))):
            first = inputs["input_ids"][0][:12].tolist()
            raise RunFault(
                f"the loss became {loss.item()} at optimizer step {self.state.global_step + 1}, in a batch of "
                f"{inputs['input_ids'].shape[0]} rows the first of which begins with tokens {first}; lower "
                "trainer.learning_rate, raise trainer.warmup_share, or use model.dtype=float32"
            )
        return loss

    def _pass(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> torch.Tensor:
        """Forward and backward of one batch: here, or in one pass with the batches of other runs."""
        if self._member is None:
            return self._pass_here(model, inputs, num_items_in_batch)
        from harness.training.packed.member import Batch

        model.train()
        answer = self._member.take(
            Batch(
                model=model,
                base=self._member.base,
                inputs=self._prepare_inputs(inputs),
                items=num_items_in_batch,
                precision=self.compute_loss_context_manager,
                tokens=sum(self._lengths) / len(self._lengths) * self.args.train_batch_size,
                most_tokens=max(self._lengths) * self.args.train_batch_size,
                alone=self._why_alone(inputs, num_items_in_batch),
                fused=self._fused,
            )
        )
        self._gathered.timer.exclude(answer.waited_s)
        return self._pass_here(model, inputs, num_items_in_batch) if answer.loss is None else answer.loss

    def _pass_here(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> torch.Tensor:
        """Forward and backward: transformers' own where processes share the work, the same without its walks else."""
        if not self._alone:
            return super().training_step(model, inputs, num_items_in_batch)
        if not model.training:
            model.train()
        summed = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        # A penalty is added to each pass; a mean over the pass is not a share of the step's.
        whole = not summed or bool(self.hooks.penalties)
        losses = []
        with self._written_out(model, self._prepare_inputs(inputs), None if whole else self._tokens_at_once) as batches:
            for batch in batches:
                with self.compute_loss_context_manager(), self._above_frozen(batch):
                    loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
                if not summed:
                    loss = loss / self.current_gradient_accumulation_steps
                self.accelerator.backward(loss)
                losses.append(loss.detach())
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _above_frozen(self, batch: dict[str, Any]) -> AbstractContextManager[None]:
        if self._frozen is None or "row_lengths" not in batch:
            return nullcontext()
        return self._frozen.given(batch)

    @contextmanager
    def _written_out(self, model: Any, inputs: dict[str, Any], tokens: int | None) -> Iterator[list[dict[str, Any]]]:
        """The batch in the form in which passes are fastest, in parts of so many tokens, with what they need."""
        with ExitStack() as stack:
            if self._fused:
                stack.enter_context(fused_head(model))
            if not self._joined:
                yield [inputs]
                return
            yield stack.enter_context(joined_rows(model, inputs, tokens, single=self._frozen is not None))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: transformers' estimate walks over the whole model at every step."""
        return 0

    def _clip_grad_norm(self, model: Any) -> Any:
        """Over the weights that train; accelerate and torch would walk over all of them."""
        if not self._alone:
            return super()._clip_grad_norm(model)
        optimizer: Any = self.optimizer
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        return self.accelerator.clip_grad_norm_(trained, self.args.max_grad_norm)

    def _why_alone(self, inputs: dict[str, Any], num_items_in_batch: Any) -> str | None:
        """Why nobody else can compute the passes of this trainer; None if somebody can."""
        if self.args.fp16:
            return "float16: its loss is scaled by each run's own factor"
        if not self.model_accepts_loss_kwargs or num_items_in_batch is None:
            return "the loss of this model is a mean over each pass"
        if "shift_labels" not in inputs:
            return "this model computes all of its logits, or a loss of its own"
        if more := sorted(inputs.keys() - INPUTS):
            return f"its batches have {', '.join(more)} besides tokens, mask and labels"
        return None


def _can_join(model: Any) -> bool:
    return head.why_not(model) is None and why_padded(model) is None


def loss_sums_over_step(model: Any) -> bool:
    """Whether the model's loss is divided by the tokens of a whole step, however many passes it takes."""
    network = model.get_base_model()
    if hasattr(network, "accepts_loss_kwargs"):
        return bool(network.accepts_loss_kwargs)
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(network.forward).parameters.values())


@contextmanager
def _shared_penalties(model: Any, hooks: Hooks, batches: int) -> Iterator[None]:
    """Let the penalties that a method adds to the loss of each batch amount to one penalty per optimizer step.

    The loss of each of ``batches`` accumulated batches is divided by the step's tokens inside the model, but what a
    method adds afterwards is not divided, and would grow with the accumulation.
    """
    _, config, _ = adapter_of(model)
    kept = {name: getattr(config, name) for name in hooks.penalties}
    vars(config).update({name: weight / batches for name, weight in kept.items()})
    try:
        yield
    finally:
        vars(config).update(kept)
