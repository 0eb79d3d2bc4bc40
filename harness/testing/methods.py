"""What every method promises, checked on the embedded model: the same checks for ours and for those of others.

A check raises ``Broken`` with what was measured, or ``NotClaimed`` if the method's traits do not promise it; what it
returns is a remark. Traits are held to behavior both ways: a promise that is not made must not hold by accident, where
a reader would rely on it.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness.adapters.attach import load_peft_model
from harness.adapters.save_load import adapter_writer
from harness.data.collate import collate
from harness.errors import Paused
from harness.methods.registry import METHODS, changes_base, hooks_of, traits_of
from harness.models.base import Base, fingerprint_weights, fork, load_base
from harness.models.network import checkpoint_layers
from harness.pipeline import steps, tune
from harness.pipeline.cache import ProcessCache
from harness.pipeline.values import AuditedRows
from harness.plan.spec import Plan
from harness.training.checkpoints import CheckpointSettings
from harness.training.train import Observers, TrainingResult, train

SAME, MERGED = 1e-5, 1e-4  # float32 sums in another order; weights added up in float32


class Broken(AssertionError):
    """The method does not do what it promises."""


class NotClaimed(Exception):
    """The method does not promise this."""


@dataclass(frozen=True)
class Trained:
    """A method on a fork of the base, after its training."""

    model: Any
    result: TrainingResult
    write: Callable[[Path], None]


class Subject:
    """One method at its own settings, with a plan of a few steps on the embedded model."""

    def __init__(self, method: str, base: Base, plan: Callable[..., Plan]) -> None:
        self.method, self.base, self._plan_of = method, base, plan
        self.folder = tempfile.TemporaryDirectory(prefix="harness-testing-")

    def plan(self, *overrides: str) -> Plan:
        """The plan with these overrides besides."""
        return self._plan_of(f"peft={self.method}", *overrides)

    @cached_property
    def usual(self) -> Plan:
        """The plan as it is."""
        return self.plan()

    @cached_property
    def rows(self) -> AuditedRows:
        """Tokenized rows."""
        return steps.tokenize(self.usual, ProcessCache(), self.base)

    @property
    def traits(self) -> Any:
        """What the method promises at its own settings."""
        return traits_of(self.method, self.usual.settings)

    def attached(self, plan: Plan | None = None) -> Any:
        """The method on a fresh fork of the base, ready to train."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tune.attach(plan or self.usual, self.base, self.rows).model

    def untouched(self) -> Any:
        """A fresh fork of the base."""
        return fork(self.base, changes_base(self.method, self.usual.settings))

    def trained(self, plan: Plan | None = None, checkpoint: CheckpointSettings | None = None) -> Trained:
        """The method after its training."""
        plan = plan or self.usual
        model = self.attached(plan)
        scratch = Path(tempfile.mkdtemp(dir=self.folder.name))
        write = adapter_writer(model, scratch / "writer")
        inputs = tune.training_inputs(self.base, self.rows)
        result = train(model, plan, inputs, scratch, checkpoint, Observers())
        hooks_of(self.method, plan.settings).finish(model)
        return Trained(model.eval(), result, write)

    @cached_property
    def after(self) -> Trained:
        """The method after its training; checks must not change it."""
        return self.trained()

    @torch.no_grad()
    def logits(self, model: Any) -> torch.Tensor:
        """Logits (b, t, v) of three rows of the test split, at their text."""
        batch = collate(self.rows.splits["test"][:3], int(self.base.tokenizer.pad_token_id), "right")
        found = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return found[:, -batch["input_ids"].shape[1] :][batch["attention_mask"].bool()]

    @torch.no_grad()
    def answers(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Greedy continuations of prompts of equal length."""
        ids = torch.tensor([list(prompt) for prompt in prompts])
        made = model.eval().generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            pad_token_id=int(self.base.tokenizer.pad_token_id),
        )
        continued: list[list[int]] = made[:, -6:].tolist()
        return continued


def trains(subject: Subject) -> str:
    """Something is trained, with finite losses, and the shared base stays as it was."""
    before = fingerprint_weights(subject.base.model)
    start = {
        name: weight.detach().clone() for name, weight in subject.attached().named_parameters() if weight.requires_grad
    }
    after = subject.after
    changed = [
        name
        for name, weight in after.model.named_parameters()
        if name in start and not torch.equal(weight, start[name])
    ]
    if not changed:
        raise Broken("training changes no weight; does the forward pass use the trainable ones?")
    if fingerprint_weights(subject.base.model) != before:
        raise Broken(
            "training changed the shared base model; work on the model that build is given, or declare rewrites_base"
        )
    rate, count = subject.usual.learning_rate, after.result.parameters.trainable
    return f"{count:,} trainable parameters, learning rate {rate:g}"


def identity_at_start(subject: Subject) -> str:
    """Before training the model is the base model, exactly where the traits say so."""
    distance = _distance(subject.logits(subject.attached()), subject.logits(subject.untouched()))
    if subject.traits.identity_at_start and distance > SAME:
        raise Broken(
            f"before training its logits differ by {distance:.2g}; start it at zero, or say identity_at_start=False"
        )
    if not subject.traits.identity_at_start:
        if distance <= SAME:
            raise Broken("before training it is the base model; say identity_at_start=True")
        raise NotClaimed
    return f"largest difference {distance:.2g}"


def save_and_reload(subject: Subject) -> str:
    """The saved adapter on a fresh base gives the same logits and answers."""
    folder = Path(tempfile.mkdtemp(dir=subject.folder.name)) / "adapter"
    after = subject.after
    after.write(folder)
    again = load_peft_model(subject.untouched(), folder)
    distance = _distance(subject.logits(again), subject.logits(after.model))
    if distance > SAME:
        raise Broken(f"the reloaded adapter's logits differ by {distance:.2g}: something that is trained is not saved")
    prompts = [row.input_ids[: row.prompt_length][-8:] for row in subject.rows.splits["test"][:2]]
    if subject.answers(again, prompts) != subject.answers(after.model, prompts):
        raise Broken("the reloaded adapter generates other answers")
    return f"largest difference {distance:.2g}"


def merging(subject: Subject) -> str:
    """Merged into plain weights it is the same model, exactly where the traits say so."""
    model = copy.deepcopy(subject.after.model)  # merging writes into the base weights, which are shared
    expected = subject.logits(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = model.merge_and_unload()
    except (ValueError, AttributeError, NotImplementedError, TypeError) as error:
        if subject.traits.mergeable:
            raise Broken(f"it cannot be merged ({error}); say mergeable=False") from error
        raise NotClaimed from error
    if not subject.traits.mergeable:
        raise Broken(
            "it can be merged, although its traits say mergeable=False; let merge_and_unload raise, or say True"
        )
    distance = _distance(subject.logits(merged), expected)
    if distance > MERGED:
        raise Broken(f"merged, its logits differ by {distance:.2g}")
    return f"largest difference {distance:.2g}"


def gradient_checkpointing(subject: Subject) -> str:
    """Gradients are the same with activations recomputed."""
    if not subject.traits.checkpointing:
        raise NotClaimed
    plain, checkpointed = subject.attached(), subject.attached()
    checkpoint_layers(checkpointed)
    first, second = _gradients(subject, plain), _gradients(subject, checkpointed)
    if first.keys() != second.keys():
        raise Broken(
            f"with gradient checkpointing other weights have gradients: {sorted(first.keys() ^ second.keys())[:3]}"
        )
    largest = max((float((first[name] - second[name]).abs().max()) for name in first), default=0.0)
    if largest > SAME:
        raise Broken(f"with gradient checkpointing its gradients differ by {largest:.2g}; say checkpointing=False")
    return f"largest difference {largest:.2g}"


def _gradients(subject: Subject, model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model.train()
    batch = collate(subject.rows.splits["train"][:2], int(subject.base.tokenizer.pad_token_id), "right")
    model(**batch).loss.backward()
    named = model.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.requires_grad and weight.grad is not None}


def determinism(subject: Subject) -> str:
    """Two trainings with one seed end with the same bits."""
    first, second = subject.after, subject.trained()
    if different := _different(first.model, second.model):
        raise Broken(f"two trainings with one seed differ in {different}; seed what it draws by context.seed")
    return "bit for bit"


def resuming(subject: Subject) -> str:
    """Training that is paused at a checkpoint and resumed ends with the same bits."""
    folder = Path(tempfile.mkdtemp(dir=subject.folder.name))
    settings = CheckpointSettings(folder, "testing", None, None)
    try:
        subject.trained(checkpoint=replace(settings, pause_after=1))
    except Paused:
        pass
    else:
        raise Broken("training did not pause where it was asked to")
    if different := _different(subject.after.model, subject.trained(checkpoint=settings).model):
        raise Broken(f"a resumed training differs in {different}; return from Hooks.state what a checkpoint must carry")
    return "bit for bit"


def budget(subject: Subject) -> str:
    """A larger value of its knob makes a larger adapter (or a smaller one, if it says so)."""
    knobs = METHODS[subject.method].knobs
    if not knobs or knobs[0].values is None:
        raise NotClaimed
    knob = knobs[0]
    sizes = []
    for value in (2, 4):
        plan = replace(
            subject.usual, settings=dict(subject.usual.settings) | knob.setting(subject.usual.settings, value)
        )
        sizes.append(sum(weight.numel() for weight in subject.attached(plan).parameters() if weight.requires_grad))
    if sizes[0] == sizes[1] or (sizes[0] > sizes[1]) != knob.falls:
        raise Broken(f"{knob.key}=2 trains {sizes[0]:,} and {knob.key}=4 trains {sizes[1]:,}; correct its Knob")
    return f"{knob.key}: {sizes[0]:,} and {sizes[1]:,} parameters"


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def _different(one: Any, other: Any) -> str:
    """Name of the first tensor in which two models differ; "" if there is none."""
    theirs = other.state_dict()
    return next((name for name, tensor in one.state_dict().items() if not torch.equal(tensor, theirs[name])), "")


CHECKS: dict[str, Callable[[Subject], str]] = {
    "trains": trains,
    "identity at start": identity_at_start,
    "save and reload": save_and_reload,
    "merging": merging,
    "gradient checkpointing": gradient_checkpointing,
    "determinism": determinism,
    "checkpoint and resume": resuming,
    "budget": budget,
}

OVERRIDES = (
    *("model=tiny", "model.device=cpu", "data=medicine", "data.limits={train: 16, validation: 8, test: 8}"),
    *("trainer.batch_size=4", "trainer.max_steps=4", "trainer.evaluations=2", "trainer.keep_best=false"),
    *(
        "trainer.deterministic=true",
        "trainer.kernels=plain",
        "scoring.metrics=[exact_match]",
        "scoring.forgetting=null",
    ),
)


def plan_of(*overrides: str) -> Plan:
    """A plan of a few steps on the embedded model."""
    from hydra import compose, initialize_config_dir

    from harness.config.compose import register_schema
    from harness.plan.read import read_config
    from harness.shipped import shipped_folder

    register_schema()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3"):
        return read_config(compose("config", overrides=[*OVERRIDES, *overrides]))[0]


def subject_of(method: str, base: Base | None = None) -> Subject:
    """The method on the embedded model.

    Raises:
        HarnessError: its settings do not make a plan.
    """
    return Subject(method, base or load_base(plan_of(f"peft={method}").model), plan_of)
