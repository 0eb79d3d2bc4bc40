"""Initializations of LoRA that use training rows: CorDA and LoRA-GA before the adapter is made, EVA after it."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.methods.context import Batch, BuildContext, first_batches

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

BATCHES = {"corda": 16, "lora_ga": 4, "eva": 64}  # at most; the papers use far less than an epoch

EVA_PASSES = 1000  # batches; on real rows its directions settle within a few dozen


def rewrites_base(init: Any) -> bool:
    """Whether this ``init_lora_weights`` moves a part of the base weights into the adapter.

    Saved as the difference to its start, such an adapter is a plain LoRA of the original base.
    """
    return str(init).startswith(("pissa", "olora", "corda", "lora_ga"))


def initialize_before(model: "PreTrainedModel", config: Any, context: BuildContext) -> None:
    """Collect what the initialization needs from the bare model, before PEFT wraps it.

    Raises:
        ModelFault: the initialization needs training rows, and there are none.
    """
    init = getattr(config, "init_lora_weights", None)
    if init not in ("corda", "lora_ga"):
        return
    import torch
    from peft.tuners.lora.corda import preprocess_corda
    from peft.tuners.lora.loraga import preprocess_loraga
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    batches = [_on(batch, model.device) for batch in first_batches(context, BATCHES[init], _who(init))]
    if isinstance(config.target_modules, str):
        _maybe_include_all_linear_layers(config, model)  # these two read the names themselves

    if init == "corda":

        def run() -> None:
            for batch in batches:
                for row in range(len(batch["input_ids"])):  # one sequence at a time, without padding
                    present = batch["attention_mask"][row].bool()
                    model(input_ids=batch["input_ids"][row][present][None])

        preprocess_corda(model, config, run_model=run)
        model.eval()
        return

    def step() -> None:
        for batch in batches:
            model(**batch).loss.backward()

    training = torch.is_grad_enabled()
    preprocess_loraga(model, config, train_step=step)
    torch.set_grad_enabled(training)


def initialize_after(model: "PeftModel", config: Any, context: BuildContext) -> None:
    """Initialize what needs the wrapped model: EVA's singular vectors of each layer's inputs.

    Raises:
        ModelFault: there are no training rows, or too few for the rank.
    """
    if getattr(config, "init_lora_weights", None) != "eva":
        return
    from peft import initialize_lora_eva_weights

    device = next(model.parameters()).device
    batches = [_on(batch, device) for batch in first_batches(context, BATCHES["eva"], _who("eva"))]
    most = max(batch["input_ids"].numel() for batch in batches)
    wanted = round(max([config.r, *config.rank_pattern.values()]) * max(config.eva_config.rho, 1))
    try:
        if most < wanted:
            raise ValueError(f"the largest has {most} tokens, and {wanted} directions are sought")
        with redirect_stdout(io.StringIO()):  # PEFT prints a line for each layer and each batch that is too small
            initialize_lora_eva_weights(model, _Repeated(batches), show_progress_bar=False)
    except ValueError as error:
        raise ModelFault(
            f"lora.init_lora_weights=eva failed on {len(batches)} training batches ({error}); use larger batches "
            "(trainer.batch_size), more rows, or a lower lora.r"
        ) from error


class _Repeated:
    """Batches that PEFT may go through again and again until EVA's directions settle, but not forever."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self._batches, self._given = batches, 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            self._given += 1
            if self._given > EVA_PASSES:
                raise ValueError(f"its directions did not settle in {EVA_PASSES} batches")
            yield batch


def _who(init: str) -> str:
    return f"lora.init_lora_weights={init}"


def _on(batch: Batch, device: Any) -> dict[str, Any]:
    return {name: tensor.to(device) for name, tensor in batch.items()}
