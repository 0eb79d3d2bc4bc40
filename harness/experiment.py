"""One run, stage by stage: each method does its stage and writes what it learnt into the record."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness import (
    adapters,
    checkpoints,
    files,
    memory,
    methods,
    models,
    parallel,
    progress,
    provenance,
    quantized,
    record,
    score,
    shared,
    teachers,
    tokens,
    train,
)
from harness.errors import Elsewhere
from harness.plan import Options, Plan
from harness.schema import Objective, Strategy
from harness.score import Scores
from harness.settings import freeze
from harness.shared import Examples

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
        self.folder = record.path(options.runs_dir, plan.fingerprint).parent
        self.progress = progress.Beacon(self.folder)
        self.held: Callable[[], bool] = lambda: True
        self.tracker: Any = None
        self._write: Callable[[Path], Any]

    def load(self) -> models.Base:
        """The base model, shared by the runs of this process."""
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        self.progress.enter("loading")
        base, seconds = shared.base(self.plan)
        if base.device.type == "cuda":
            torch.cuda.set_device(base.device)
        self.fields["times_s"]["load"] = seconds
        self.fields["device"] = provenance.device_info(str(base.device)) | {"processes": parallel.processes()}
        self.fields["inferred"] |= {
            "device": str(base.device),
            "dtype": str(base.dtype).removeprefix("torch."),
        }
        self.fields["memory_bytes"]["base"] = quantized.storage_bytes(base.model)
        if base.pruned_share is not None:
            self.fields["inferred"]["pruned_share"] = base.pruned_share
        self.fields["inferred"]["base_weights"] = shared.checksum(self.plan)
        self._note(*base.notes, of_many=True)
        return base

    def tokenise(self, base: models.Base) -> Examples:
        """Rows as tokens, with the label audit of the training split."""
        rows = shared.examples(self.plan, base)
        self.fields["times_s"]["tokenise"] = rows.seconds
        self.fields["rows"] = rows.rows
        objective = self.plan.trainer.objective
        self.fields["audit"] = {"labels": objective.value} | tokens.audit(rows.splits["train"], rows.refused, objective)
        self._note(*rows.notes, of_many=True)
        return rows

    def baseline(self, base: models.Base, rows: Examples) -> Scores:
        """Scores of the untouched base under this plan's protocol."""
        self.progress.enter("scoring before")
        started = time.perf_counter()
        code = self.fields["code"]["version"]
        before, reused = parallel.agreed(lambda: shared.baseline(self.plan, base, rows, self.options.runs_dir, code))
        self.fields["times_s"]["score_before"] = 0.0 if reused else time.perf_counter() - started
        self.fields["scores"]["before"] = before.values
        return before

    def tune(self, base: models.Base, rows: Examples) -> "PeftModel":
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
                alone = parallel.processes() == 1
                smaller = _smaller(plan) if alone and self.options.halve_on_oom and memory.ran_out(error) else None
                if smaller is None:
                    raise
                plan, reason = smaller, str(error).partition("\n")[0][:200]
            # Outside the handler: the error holds on to the frames of training, and they to its tensors.
            del model
            memory.release()
            size, times = plan.trainer.batch_size, plan.trainer.gradient_accumulation_steps
            self._note(f"out of memory ({reason}): trained again with {size} rows a pass and {times} passes a step")
            self.fields["inferred"] |= {"batch_size": size, "gradient_accumulation_steps": times}

    def attach(self, base: models.Base, rows: Examples) -> "PeftModel":
        """The method on a fork of the base, seeded, ready to train."""
        plan = self.plan
        steps = train.optimizer_steps(plan.trainer, len(rows.splits["train"]))
        batches = partial(_batches, rows.splits["train"], plan.trainer.batch_size, int(base.tokenizer.pad_token_id))
        situation = methods.situation_for(plan, base.model.config, base.tokenizer.name_or_path, steps, batches)
        train.seed_everything(plan.seed, plan.trainer.deterministic)
        fork = models.fork(base, methods.changes_base(plan.method, plan.settings))
        model = methods.attach(fork, plan.method, plan.settings, situation)
        _part_from_base(model, base)
        self._write = adapters.keep_start(model, self.folder / SCRATCH)
        settled = {f"{plan.method}.{key}": value for key, value in methods.inferred(model, plan.settings).items()}
        self.fields["inferred"] |= settled | {
            "learning_rate": plan.learning_rate,
            "optimizer_steps": steps,
            "rows_per_step": train.rows_per_step(plan.trainer),
            "target_modules": methods.targeted(model),
            "attn_implementation": base.model.config._attn_implementation,
        }
        if methods.changes_base(plan.method, plan.settings):
            self._note(f"{plan.method} writes into base weights: with the adapter disabled this is not the base")
        self._note(*filter(None, [methods.caveat(plan.method, plan.settings)]))
        return model

    def train(self, model: "PeftModel", base: models.Base, rows: Examples, plan: Plan) -> None:
        """Train in place by ``plan``; the record gets costs, curves and what the labels amounted to."""
        self.progress.enter("training")
        teacher = self._teacher(base)
        keeping = self._keeping()
        with memory.peak(base.device.type) as peak:
            done = train.train(
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
        peaks = [each for each in parallel.gathered(peak.bytes) if each is not None]
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
        self.fields["training"] |= methods.finish(model)

    def _teacher(self, base: models.Base) -> teachers.Teacher | None:
        """The frozen model to learn from, where the plan has one."""
        if self.plan.trainer.objective is not Objective.distill:
            return None
        teacher = teachers.load(self.plan, self.options.runs_dir, base.tokenizer)
        self._note(teacher.note)
        return teacher

    def _keeping(self) -> checkpoints.Keeping | None:
        """Where this run's checkpoints lie, and how often they are written; None: shards keep none."""
        shares = self.plan.trainer.parallel
        if shares.strategy not in (Strategy.none, Strategy.ddp):
            self._note(
                f"trainer.parallel.strategy={shares.strategy.value} writes no checkpoints: stopped, it begins anew"
            )
            return None
        minutes, steps = self.options.checkpoint_minutes, self.options.checkpoint_steps
        seconds = None if minutes is None else 60 * minutes
        return checkpoints.Keeping(self.folder / CHECKPOINTS, self.fields["code"]["version"], seconds, steps)

    def save(self, model: "PeftModel") -> None:
        """The adapter in PEFT's format, beside the template that it was trained with."""
        saved = parallel.agreed(lambda: self._saved(model))
        self.fields["adapter"] = {"path": ADAPTER, "bytes": saved.bytes, "files": saved.files}
        self.fields["parameters"] |= {"stored": saved.numbers, "trainable_final": saved.trainable_final}

    def _saved(self, model: "PeftModel") -> adapters.Saved:
        self.check_held()
        return adapters.save(self._write, self.folder / ADAPTER, self.plan, model)

    def score(self, model: "PeftModel", base: models.Base, rows: Examples) -> Scores:
        """Scores of the tuned model, by the protocol of the baseline."""
        self.progress.enter("scoring after")
        started = time.perf_counter()
        with memory.peak(base.device.type) as peak:
            after = parallel.agreed(
                lambda: score.score(
                    model,
                    base.tokenizer,
                    rows.splits[self.plan.scoring.split],
                    rows.held_out,
                    self.plan.scoring,
                    equal_lengths=methods.prompt_learning(self.plan.method, self.plan.settings),
                    seed=self.plan.seed,
                )
            )
        self.fields["times_s"]["score_after"] = time.perf_counter() - started
        self.fields["memory_bytes"]["score_peak"] = peak.bytes
        self.fields["scores"] |= {"after": after.values, "signatures": after.signatures}
        return after

    def predictions(self, rows: Examples, before: Scores, after: Scores) -> None:
        """Prompt, reference and both answers of every scored row, as JSONL; a sample goes to the tracker."""
        if not after.answers:
            return
        examples = rows.splits[self.plan.scoring.split]
        kept = [
            {"prompt": example.prompt, "reference": example.row.output, "before": old, "after": new}
            for example, old, new in zip(examples, before.answers, after.answers, strict=True)
        ]
        files.write_jsonl(self.folder / PREDICTIONS, kept)
        self.fields["predictions"] = PREDICTIONS
        self.tracker.table("predictions", list(kept[0]), [list(row.values()) for row in kept[:200]])

    def check_held(self) -> None:
        """Elsewhere where another process has taken the run over: its files are not to be written then."""
        if not self.held():
            raise Elsewhere(f"another process has taken over {self.plan.fingerprint}; nothing more is written here")

    def check_base(self) -> None:
        """Prove that the shared base is still bit for bit what was loaded; a failed run is checked, too."""
        fault = shared.check_base(self.plan)
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
            record.note(self.fields, text, of_many)


def _smaller(plan: Plan) -> Plan | None:
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


def _part_from_base(model: "PeftModel", base: models.Base) -> None:
    """Give base weights that the method trains in place (``lora.bias=all``) storage of their own."""
    shared_places = {parameter.data_ptr() for parameter in base.model.parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.data_ptr() in shared_places:
            parameter.data = parameter.data.clone()


def _batches(examples: "Sequence[tokens.Example]", size: int, pad_id: int) -> Iterator[dict[str, torch.Tensor]]:
    """The training rows in their order, for methods that look at data before they train."""
    for start in range(0, len(examples), size):
        yield tokens.collate(examples[start : start + size], pad_id, "right")
