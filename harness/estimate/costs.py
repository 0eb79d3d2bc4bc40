"""What a plan's adapter holds and its training computes, counted on the meta device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.adapters import block_sizes
from harness.adapters.attach import build_context, explaining_peft_errors, peft_config_for, wrap_model
from harness.errors import DataFault, ModelFault, first_line
from harness.estimate import formulas, parameters
from harness.methods.context import for_counting
from harness.methods.registry import changes_base
from harness.models import skeleton as model_skeleton
from harness.models import sources as model_sources
from harness.models.network import checkpoint_layers
from harness.plan.spec import Plan, digest, optimizer_steps, plain

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

BYTES = 4  # of a trained number, which is float32 on any base


def block_sizes_of(plan: Plan) -> list[int]:
    """The block sizes that fit every layer which the plan adapts, in rising order.

    Raises:
        ModelFault: the method does not fit the model.
    """
    with configured(plan) as (skeleton, config):
        return block_sizes.fitting_sizes(config, skeleton)


def stored_bytes(plan: Plan) -> int:
    """Bytes of the numbers that the saved adapter holds; its configuration and file headers are not counted.

    AdaLoRA is counted at the mean rank that pruning leaves. Initializations that change the base are saved as LoRA of
    twice the rank.

    Raises:
        ModelFault: the method does not fit the model.
    """
    if plan.method == "adalora":
        left = {**plan.settings, "init_r": plan.settings["target_r"]}
        plan = replace(plan, settings=MappingProxyType(left))
    with configured(plan) as (skeleton, config):
        if needs_weights(config):
            return BYTES * formulas.trained(config, skeleton)
        model = wrap_model(skeleton, config)
        numbers = _prompt_numbers(model) if config.is_prompt_learning else _state_numbers(model)
        doubled = plan.method == "lora" and changes_base(plan.method, plan.settings)
        return BYTES * numbers * (2 if doubled else 1)


def _state_numbers(model: "PeftModel") -> int:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return sum(value.numel() for value in state.values())


def _prompt_numbers(model: "PeftModel") -> int:
    """The prompt alone: keys and values of each layer, or tokens. PEFT would run the network that makes it."""
    config: Any = model.peft_config[str(model.active_adapter)]
    per_token = config.token_dim * (2 * config.num_layers if config.peft_type == "PREFIX_TUNING" else 1)
    return int(config.num_virtual_tokens * per_token)


def train_flops(plan: Plan) -> float:
    """Floating-point operations of the plan's training: matrix products forward and backward, without padding.

    One pass is counted at the mean length of the training rows, with the logits of a mean completion.

    Raises:
        ModelFault: the method does not fit the model, or the model cannot be run without memory.
        DataFault: the rows cannot be read.
    """
    rows, length, completion = mean_lengths(plan)
    trainer = plan.trainer
    passes = optimizer_steps(trainer, rows) * trainer.gradient_accumulation_steps * trainer.parallel.processes
    with configured(plan) as (skeleton, config):
        return float(passes * _pass_flops(wrap_model(skeleton, config), plan, length, completion))


def _pass_flops(model: "PeftModel", plan: Plan, length: int, completion: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = (plan.trainer.batch_size, length)
    ids = torch.zeros(size, dtype=torch.long, device="meta")
    if plan.trainer.gradient_checkpointing:
        checkpoint_layers(model)
    model.train()
    try:
        with _unread_masks(), FlopCounterMode(display=False) as counter:
            output = model(input_ids=ids, use_cache=False)
            output.logits[:, -completion:].float().sum().backward()
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, LookupError) as error:
        raise ModelFault(
            f"peft={plan.method}: the operations of a pass cannot be counted without weights ({first_line(error)}); "
            "use budget.trainable_params"
        ) from error
    return int(counter.get_total_flops())


@contextmanager
def _unread_masks() -> Iterator[None]:
    """Let transformers make attention masks without reading their values, as it does while a model is compiled."""
    from transformers import masking_utils

    patched: Any = masking_utils
    usual = patched.is_tracing
    patched.is_tracing = lambda *tensors: True
    try:
        yield
    finally:
        patched.is_tracing = usual


def mean_lengths(plan: Plan) -> tuple[int, int, int]:
    """Training rows, their mean length and that of their completions, in tokens."""
    folder = model_sources.locate_tokenizer(plan.model)
    if folder is None:
        raise ModelFault(
            f"model={plan.model.name} has no tokenizer here, and budget.train_flops needs one to count tokens"
        )
    whole = plan.as_dict()
    key = digest([whole["data"], whole["inputs"], str(folder)])
    if key not in _lengths():
        from harness.data import dataset
        from harness.data.tokenize import tokenize_splits
        from harness.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(folder, plan.model.trust_remote_code)[0]
        rows = tokenize_splits(dataset.read_splits(plan.data), plan.data, tokenizer).splits["train"]
        if not rows:
            raise DataFault(f"data.path={plan.data.path} leaves no row for the split train; add rows")
        tokens = sum(len(row.input_ids) for row in rows)
        prompts = sum(row.prompt_length for row in rows)
        _lengths()[key] = len(rows), max(2, round(tokens / len(rows))), max(1, round((tokens - prompts) / len(rows)))
    return _lengths()[key]


@cache
def _lengths() -> dict[str, tuple[int, int, int]]:
    """Of the data sets that this process has tokenized."""
    return {}


@contextmanager
def configured(plan: Plan) -> "Iterator[tuple[PreTrainedModel, PeftConfig]]":
    """The plan's model on the meta device, and PEFT's configuration of its method; PEFT's errors as ``ModelFault``."""
    config = parameters.checked_config(plan)
    context = build_context(plan, config, str(plan.model.path), plan.trainer.max_steps or 0)
    skeleton = model_skeleton.skeleton(config)
    settings = plain(plan.settings)
    made = peft_config_for(skeleton, plan.method, settings, for_counting(context))
    with explaining_peft_errors(f"peft={plan.method}", made, skeleton):
        yield skeleton, made


def needs_weights(config: Any) -> bool:
    """Whether PEFT computes with the base's numbers while it builds this method."""
    return str(getattr(config.peft_type, "value", config.peft_type)) in formulas.TRAINED
