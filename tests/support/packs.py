"""Runs of a pack without a sweep: batches as a Trainer hands them over, and whole packs of small runs."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.data.collate import collate, with_needed_logits
from harness.sweep.cells import Cell
from harness.sweep.launchers.packed import Packed
from harness.sweep.outcome import Outcome
from harness.sweep.packs import run_packed
from harness.sweep.worklist import Worklist
from harness.training.packed.ambient import Ambient
from harness.training.packed.member import Batch
from tests.support.runs import Prepared, overrides, plan_of

# What the runs of one pack may differ in, each beside runs of every other kind.
SETTINGS: dict[str, tuple[str, ...]] = {
    "rank": ("lora.r=3",),
    "higher rank": ("lora.r=8",),
    "alpha": ("lora.r=3", "lora.lora_alpha=7"),
    "rslora": ("lora.r=3", "lora.use_rslora=true"),
    "dropout": ("lora.r=3", "lora.lora_dropout=0.3"),
    "rate": ("lora.r=3", "lora.learning_rate=0.03"),
    "gaussian": ("lora.r=3", "lora.init_lora_weights=gaussian"),
    "from data": ("lora.r=3", "lora.init_lora_weights=eva"),
    "targets": ("lora.r=3", "lora.target_modules=[q_proj,down_proj]"),
    "head": ("lora.r=3", "lora.target_modules=[v_proj,lm_head]"),
    "layers": ("lora.r=3", "lora.layers_to_transform=[1]", "lora.target_modules=[q_proj,v_proj]"),
    "patterns": ("lora.r=3", "+lora.rank_pattern={v_proj: 5}", "+lora.alpha_pattern={q_proj: 9}"),
    "seed": ("lora.r=3", "seed=1"),
    "lora+": ("lora.r=3", "lora.loraplus_lr_ratio=4"),
    "lora-fa": ("lora.r=3", "lora.lora_fa=true"),
    "schedule": ("lora.r=3", "trainer.schedule=linear", "trainer.weight_decay=0.1", "trainer.max_grad_norm=0.5"),
    "steps": ("lora.r=3", "trainer.max_steps=2"),
    "ia3": ("peft=ia3",),
    "ia3 targets": ("peft=ia3", "ia3.target_modules=[q_proj,up_proj]", "ia3.feedforward_modules=[up_proj]"),
}


def batch_of(made: Prepared, places: Sequence[int]) -> Batch:
    """These training rows as the run's Trainer hands them over."""
    rows = [made.rows.splits["train"][place] for place in places]
    inputs = with_needed_logits(collate(rows, int(made.base.tokenizer.pad_token_id), "right"))
    items = (inputs["labels"][:, 1:] != -100).sum()
    size = inputs["input_ids"].numel()
    return Batch(made.model.train(), made.base, inputs, items, nullcontext, float(size), size)


def state_of(seed: int) -> Ambient:
    """A run's state whose dropout begins with this seed; that of the process stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Ambient()


def solo(batch: Batch, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of the batch as the run alone has them; gradients are cleared again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loss = batch.model(**batch.inputs, num_items_in_batch=batch.items).loss
        loss.backward()
    return loss.detach(), taken_gradients(batch.model)


def taken_gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients by name, taken from the model."""
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def cell_of(model: Path, rows: Path, runs_dir: Path, *words: str) -> Cell:
    """A cell of a small run, as a sweep that has just begun has it."""
    plan, read = plan_of(*overrides(model, rows, Path("unused")), *words)  # composed once, wherever it runs
    return Cell(words, plan, replace(read, runs_dir=runs_dir)).with_attempts()


def run_pack(cells: Sequence[Cell], max_runs: int | None, max_failures: int | None = None) -> list[Outcome]:
    """The outcomes of these cells under ``hydra/launcher=packed``."""
    runs_dir = cells[0].options.runs_dir
    worklist = Worklist(runs_dir, max_failures)
    worklist.add(cells)

    def dispatch(todo: Any, folder: Path, worklist: Worklist) -> Any:
        return run_packed(Packed(max_runs), todo, folder, worklist)

    return list(worklist.follow(cells, dispatch, runs_dir / "sweeps" / "s"))
