"""One run, stage by stage: each method does its stage and writes what it learnt into the record."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.adapters import attach as adapter_attach
from harness.adapters import save_load
from harness.config.schema import Objective, Strategy
from harness.data.audit import label_audit
from harness.data.collate import collate
from harness.data.tokenize import TokenizedRow
from harness.errors import HeldByAnotherProcess
from harness.frozen import freeze
from harness.methods.registry import caveat, changes_base, hooks_of, prompt_learning
from harness.models import base as model_base
from harness.models import quantization
from harness.pipeline import cache
from harness.pipeline.cache import PreparedRows
from harness.plan.spec import Options, Plan, optimizer_steps, rows_per_step
from harness.record import progress, provenance, store
from harness.record.files import write_jsonl
from harness.runtime import distributed, memory
from harness.runtime.seeding import seed_everything
from harness.scoring import score as scoring_score
from harness.scoring.score import Scores
from harness.training import checkpoints, distillation
from harness.training import train as training_train

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "adapter"


PREDICTIONS = "predictions.jsonl"


SCRATCH = "scratch"


CHECKPOINTS = "checkpoints"


class Experiment:
    """The stages of one run, in the order in which ``__main__.run`` calls them."""

    def __init__(self, plan: Plan, options: Options, name: str, fields: dict[str, Any]) -> None:
        self.plan, self.options, self.name, self.fields = plan, options, name, fields
        self.folder = store.record_path(options.runs_dir, plan.fingerprint).parent
        self.progress = progress.ProgressWriter(self.folder)
        self.held: Callable[[], bool] = lambda: True
        self.tracker: Any = None
        self._write: Callable[[Path], Any]

    def load(self) -> model_base.Base:
        """The base model, shared by the runs of this process."""
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        self.progress.enter("loading")
        base, seconds = cache.load_shared_base(self.plan)
        if base.device.type == "cuda":
            torch.cuda.set_device(base.device)
        self.fields["times_s"]["load"] = seconds
        self.fields["device"] = provenance.device_info(str(base.device)) | {"processes": distributed.processes()}
        self.fields["inferred"] |= {
            "device": str(base.device),
            "dtype": str(base.dtype).removeprefix("torch."),
        }
        self.fields["memory_bytes"]["base"] = quantization.storage_bytes(base.model)
        if base.pruned_share is not None:
            self.fields["inferred"]["pruned_share"] = base.pruned_share
        self.fields["inferred"]["base_weights"] = cache.base_checksum(self.plan)
        self._note(*base.notes, of_many=True)
        return base

    def tokenise(self, base: model_base.Base) -> PreparedRows:
        """Rows as tokens, with the label audit of the training split."""
        rows = cache.prepared_rows(self.plan, base)
        self.fields["times_s"]["tokenise"] = rows.seconds
        self.fields["rows"] = rows.rows
        objective = self.plan.trainer.objective
        self.fields["audit"] = {"labels": objective.value} | label_audit(rows.splits["train"], rows.refused, objective)
        self._note(*rows.notes, of_many=True)
        return rows

    def baseline(self, base: model_base.Base, rows: PreparedRows) -> Scores:
        """Scores of the untouched base under this plan's protocol."""
        self.progress.enter("scoring before")
        started = time.perf_counter()
        code = self.fields["code"]["version"]
        before, reused = distributed.broadcast_from_main(
            lambda: cache.baseline(self.plan, base, rows, self.options.runs_dir, code)
        )
        self.fields["times_s"]["score_before"] = 0.0 if reused else time.perf_counter() - started
        self.fields["scores"]["before"] = before.values
        return before

    def tune(self, base: model_base.Base, rows: PreparedRows) -> "PeftModel":
        """The method on a fork of the base, trained: ``attach`` and ``train``.

        Where memory runs out, trainer.on_oom=halve does both again with smaller batches on the same rows.
        """
        plan, model = self.plan, None
        while True:
            try:
                model = self.attach(base, rows)
                self.train(model, base, rows, plan)
                return model
            except (MemoryError, RuntimeError) as error:  # torch's errors of memory are RuntimeErrors
                # Of several processes one may run out alone, while the others wait for it within the step.
                alone = distributed.processes() == 1
                smaller = (
                    _with_half_batch(plan) if alone and self.options.halve_on_oom and memory.ran_out(error) else None
                )
                if smaller is None:
                    raise
                plan, reason = smaller, str(error).partition("\n")[0][:200]
            # Outside the handler: the error holds on to the frames of training, and they to its tensors.
            del model
            memory.release_memory()
            size, times = plan.trainer.batch_size, plan.trainer.gradient_accumulation_steps
            self._note(f"out of memory ({reason}): trained again with {size} rows a pass and {times} passes a step")
            self.fields["inferred"] |= {"batch_size": size, "gradient_accumulation_steps": times}

    def attach(self, base: model_base.Base, rows: PreparedRows) -> "PeftModel":
        """The method on a fork of the base, seeded, ready to train."""
        plan = self.plan
        steps = optimizer_steps(plan.trainer, len(rows.splits["train"]))
        batches = partial(_batches, rows.splits["train"], plan.trainer.batch_size, int(base.tokenizer.pad_token_id))
        situation = adapter_attach.build_context(plan, base.model.config, base.tokenizer.name_or_path, steps, batches)
        seed_everything(plan.seed, plan.trainer.deterministic)
        fork = model_base.fork(base, changes_base(plan.method, plan.settings))
        model = adapter_attach.attach(fork, plan.method, plan.settings, situation)
        _detach_from_base(model, base)
        self._write = save_load.adapter_writer(model, self.folder / SCRATCH)
        settled = {
            f"{plan.method}.{key}": value for key, value in adapter_attach.inferred(model, plan.settings).items()
        }
        self.fields["inferred"] |= settled | {
            "learning_rate": plan.learning_rate,
            "optimizer_steps": steps,
            "rows_per_step": rows_per_step(plan.trainer),
            "target_modules": adapter_attach.targeted(model),
            "attn_implementation": base.model.config._attn_implementation,
        }
        if changes_base(plan.method, plan.settings):
            self._note(f"{plan.method} writes into base weights: with the adapter disabled this is not the base")
        self._note(*filter(None, [caveat(plan.method, plan.settings)]))
        return model

    def train(self, model: "PeftModel", base: model_base.Base, rows: PreparedRows, plan: Plan) -> None:
        """Train in place by ``plan``; the record gets costs, curves and what the labels amounted to."""
        self.progress.enter("training")
        teacher = self._teacher(base)
        keeping = self._keeping()
        with memory.peak_memory(base.device.type) as peak:
            done = training_train.train(
                model,
                plan,
                rows.splits["train"],
                rows.splits["validation"],
                pad_id=int(base.tokenizer.pad_token_id),
                dtype=base.dtype,
                folder=self.folder / SCRATCH,
                log=self.tracker.log,
                label=self.name or self.plan.method,
                teacher=teacher,
                idle=[base.model],
                keeping=keeping,
                say=self._note,
                beacon=self.progress,
            )
        counts = done.parameters
        self.fields["parameters"] = {"total": counts.total, "trainable": counts.trainable, "share": counts.share}
        self.fields["times_s"]["train"] = done.step_seconds
        peaks = [each for each in distributed.gather(peak.bytes) if each is not None]
        highest = max(peaks, default=None)  # of the process that needs most
        self.fields["memory_bytes"] |= {"train_peak": highest, "kind": peak.kind}
        self.fields["audit"] |= {
            "trained_supervised_tokens": done.supervised_tokens,
            "trained_prompt_tokens": done.prompt_tokens,
            "trained_padding_tokens": done.padding_tokens,
        }
        self.fields["training"] = {
            "optimizer_steps": done.optimizer_steps,
            "tokens": done.text_tokens,
            "tokens_per_s": done.tokens_per_s,
            "best_step": done.best_step,
            "curve": done.curve,
            "validation": done.validation,
        }
        # Only now: what pruning leaves is no longer trainable, and would be counted as nothing.
        self.fields["training"] |= hooks_of(plan.method, plan.settings).finish(model)

    def _teacher(self, base: model_base.Base) -> distillation.Teacher | None:
        """The frozen model to learn from, where the plan has one."""
        if self.plan.trainer.objective is not Objective.distill:
            return None
        teacher = distillation.load_teacher(self.plan, self.options.runs_dir, base.tokenizer)
        self._note(teacher.note)
        return teacher

    def _keeping(self) -> checkpoints.CheckpointSettings | None:
        """Where this run's checkpoints lie, and how often they are written; None: shards keep none."""
        shares = self.plan.trainer.parallel
        if shares.strategy not in (Strategy.none, Strategy.ddp):
            self._note(
                f"trainer.parallel.strategy={shares.strategy.value} writes no checkpoints: stopped, it begins anew"
            )
            return None
        minutes, steps = self.options.checkpoint_minutes, self.options.checkpoint_steps
        seconds = None if minutes is None else 60 * minutes
        return checkpoints.CheckpointSettings(self.folder / CHECKPOINTS, self.fields["code"]["version"], seconds, steps)

    def save(self, model: "PeftModel") -> None:
        """The adapter in PEFT's format, beside the template that it was trained with."""
        saved = distributed.broadcast_from_main(lambda: self._saved(model))
        self.fields["adapter"] = {"path": ADAPTER, "bytes": saved.bytes, "files": saved.files}
        self.fields["parameters"] |= {"stored": saved.numbers, "trainable_final": saved.trainable_final}

    def _saved(self, model: "PeftModel") -> save_load.SavedAdapter:
        self.check_held()
        return save_load.save_adapter(self._write, self.folder / ADAPTER, self.plan, model)

    def score(self, model: "PeftModel", base: model_base.Base, rows: PreparedRows) -> Scores:
        """Scores of the tuned model, by the protocol of the baseline."""
        self.progress.enter("scoring after")
        started = time.perf_counter()
        with memory.peak_memory(base.device.type) as peak:
            after = distributed.broadcast_from_main(
                lambda: scoring_score.score(
                    model,
                    base.tokenizer,
                    rows.splits[self.plan.scoring.split],
                    rows.held_out,
                    self.plan.scoring,
                    equal_lengths=prompt_learning(self.plan.method, self.plan.settings),
                    seed=self.plan.seed,
                )
            )
        self.fields["times_s"]["score_after"] = time.perf_counter() - started
        self.fields["memory_bytes"]["score_peak"] = peak.bytes
        self.fields["scores"] |= {"after": after.values, "signatures": after.signatures}
        return after

    def predictions(self, rows: PreparedRows, before: Scores, after: Scores) -> None:
        """Prompt, reference and both answers of every scored row, as JSONL; a sample goes to the tracker."""
        if not after.answers:
            return
        examples = rows.splits[self.plan.scoring.split]
        kept = [
            {"prompt": example.prompt, "reference": example.row.output, "before": old, "after": new}
            for example, old, new in zip(examples, before.answers, after.answers, strict=True)
        ]
        write_jsonl(self.folder / PREDICTIONS, kept)
        self.fields["predictions"] = PREDICTIONS
        self.tracker.table("predictions", list(kept[0]), [list(row.values()) for row in kept[:200]])

    def check_held(self) -> None:
        """Elsewhere where another process has taken the run over: its files are not to be written then."""
        if not self.held():
            raise HeldByAnotherProcess(
                f"another process has taken over {self.plan.fingerprint}; nothing more is written here"
            )

    def check_base(self) -> None:
        """Prove that the shared base is still bit for bit what was loaded; a failed run is checked, too."""
        fault = cache.check_base(self.plan)
        if fault:
            self._note(fault)

    def summary(self) -> dict[str, float]:
        """The figures that the tracker shows for the run."""
        after, before = self.fields["scores"]["after"], self.fields["scores"]["before"]
        figures = {f"after/{name}": value for name, value in after.items()}
        figures |= {f"before/{name}": value for name, value in before.items()}
        figures |= {
            f"parameters/{name}": value for name, value in self.fields["parameters"].items() if value is not None
        }
        figures |= {f"times_s/{name}": value for name, value in self.fields["times_s"].items()}
        return figures

    def _note(self, *texts: str, of_many: bool = False) -> None:
        for text in texts:
            store.add_note(self.fields, text, of_many)


def _with_half_batch(plan: Plan) -> Plan | None:
    """The plan with fewer rows a pass and as many a step; None where a pass has a single row.

    Half of them, or the next smaller share that divides an odd number evenly.
    """
    rows = plan.trainer.batch_size
    share = next((number for number in range(2, rows + 1) if rows % number == 0), None)
    if share is None:
        return None
    accumulated = plan.trainer.gradient_accumulation_steps * share
    trainer = replace(plan.trainer, batch_size=rows // share, gradient_accumulation_steps=accumulated)
    return replace(plan, trainer=freeze(trainer))


def _detach_from_base(model: "PeftModel", base: model_base.Base) -> None:
    """Give base weights that the method trains in place (``lora.bias=all``) storage of their own."""
    shared_places = {parameter.data_ptr() for parameter in base.model.parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.data_ptr() in shared_places:
            parameter.data = parameter.data.clone()


def _batches(examples: "Sequence[TokenizedRow]", size: int, pad_id: int) -> Iterator[dict[str, torch.Tensor]]:
    """The training rows in their order, for methods that look at data before they train."""
    for start in range(0, len(examples), size):
        yield collate(examples[start : start + size], pad_id, "right")
