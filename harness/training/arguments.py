"""A plan's settings as transformers' ``TrainingArguments``."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from harness.plan.spec import Plan
from harness.training import sharding


def training_arguments(
    plan: Plan, device: torch.device, dtype: torch.dtype, steps: int, folder: Path
) -> TrainingArguments:
    """What Trainer takes; it saves, validates and logs nothing by itself.

    Args:
        dtype: of the base weights and of the arithmetic.
        steps: optimizer steps.
        folder: scratch of the run.
    """
    trainer = plan.trainer
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=trainer.batch_size,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
        learning_rate=plan.learning_rate,
        weight_decay=trainer.weight_decay,
        lr_scheduler_type=trainer.schedule.value,
        warmup_steps=round(trainer.warmup_share * steps),
        max_grad_norm=trainer.max_grad_norm,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=device.type == "cpu",
        seed=plan.seed,
        data_seed=plan.seed,
        full_determinism=trainer.deterministic,
        logging_steps=trainer.log_every or max(1, steps // 50),
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        **sharding.arguments(trainer.parallel),
    )
    sharding.place(arguments, device)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # otherwise each step would take one batch for every GPU of the machine
    return arguments
