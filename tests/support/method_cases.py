"""Every method at settings for tiny random models, and functions that build, train and query them."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from harness.adapters.attach import attach
from harness.methods.context import BuildContext
from harness.methods.registry import METHODS, hooks_of, rate_rule, traits_of
from harness.methods.traits import Traits
from harness.shipped import shipped_folder
from tests.support.tuners_models import VOCAB, base_model

ARCHITECTURES = ("qwen2", "llama", "gemma3_text", "gpt2")
SEED = 3

SMALL = {
    "adapter": {"bottleneck_size": 4},
    "bitfit": {"add_missing": True},
    "trainable_tokens": {"frequent_tokens": 40},
    "diff_pruning": {"target_sparsity": 0.1},
    "shira": {"r": 2},
    "vera": {"r": 8},
    "randlora": {"r": 4, "randlora_alpha": 80},
    "vblora": {"num_vectors": 16, "r": 2},
    "fourierft": {"n_frequency": 100},
    "cpt": {"num_virtual_tokens": 8},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4},
    "p_tuning_v2": {"num_virtual_tokens": 4},
    "lora": {"r": 4, "lora_alpha": 8},
    "adalora": {"init_r": 4, "target_r": 2},
    "miss": {"r": 4},
    "partial": {"last_layers": 1},
}
LORA = {
    "lora:dora": {"use_dora": True},
    "lora:rslora": {"use_rslora": True},
    "lora:orthogonal": {"init_lora_weights": "orthogonal"},
    "lora:mica": {"init_lora_weights": "mica"},
    "lora:pissa": {"init_lora_weights": "pissa"},
    "lora:olora": {"init_lora_weights": "olora"},
    "lora:eva": {"init_lora_weights": "eva"},
    "lora:corda": {"init_lora_weights": "corda"},
    "lora:lora_ga": {"init_lora_weights": "lora_ga"},
    "lora:lora_fa": {"lora_fa": True},
    "lora:lora_plus": {"loraplus_lr_ratio": 4.0},
}
LIBRARY = {
    "beft": {},
    "cartridge": {"num_virtual_tokens": 4},
    "deft": {"r": 4},
    "delora": {"r": 4},
    "frod": {"progressbar": False, "sparse_rate": 0.05},
    "glora": {"r": 4},
    "gralora": {"r": 4},
    "hira": {"r": 4},
    "lily": {"r": 4},
    "multitask_prompt_tuning": {"num_virtual_tokens": 4},
    "osf": {},
    "peanut": {"r": 4},
    "poly": {"r": 4},
    "psoft": {"r": 4},
    "pvera": {"r": 8},
    "shadow": {},
    "supertuning": {"sparsity": 0.9},
    "tinylora": {},
    "unilora": {},
    "waveft": {"n_frequency": 100},
}


def sheet(method: str) -> dict:
    """The sheet as a plan holds it."""
    values = OmegaConf.load(shipped_folder("conf") / "peft" / f"{method}.yaml")[method]
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(METHODS[method].sheet), values))


SHEETS = [name for name in METHODS if name != "library"]
CASES = [*SHEETS, *LORA, *(f"library:{kind}" for kind in LIBRARY)]


def parts(case: str) -> tuple[str, dict, float]:
    """Method, settings and learning rate of a case."""
    method = case.partition(":")[0]
    values = sheet(method) | SMALL.get(method, {}) | LORA.get(case, {})
    if method == "library":
        kind = case.partition(":")[2]
        values |= {"type": kind, "settings": LIBRARY[kind]}
    del values["learning_rate"]  # null: the rule's
    return method, values, rate_rule(method, values).tiny


def traits(case: str) -> Traits:
    """What the method of a case can do."""
    return traits_of(*parts(case)[:2])


# Attention that is not Llama's, which no trait tells.
UNFIT = {("llama_adapter", "gemma3_text")}
UNFIT |= {(case, "gpt2") for case in CASES if not traits_of(*parts(case)[:2]).conv1d}
QWEN2 = [(case, "qwen2") for case in CASES]
# EVA, FRoD and pVeRA take seconds for what Qwen2 has shown.
SLOW = ("lora:eva", "library:frod", "library:pvera")
FIT = QWEN2 + [
    (case, kind)
    for case in CASES
    for kind in ARCHITECTURES[1:]
    if (case, kind) not in UNFIT and (case in SHEETS or (kind != "llama" and case not in SLOW))
]
QUICK = [case for case in CASES if case != "lora:eva"]  # whose start takes seconds
EXACT = 1e-5  # float32 sums in another order
every_case = pytest.mark.parametrize("case", [*QUICK, pytest.param("lora:eva", marks=pytest.mark.slow)])
every_quick_case = pytest.mark.parametrize("case", QUICK)
every_sheet = pytest.mark.parametrize("method", SHEETS)


def fast_on_qwen2(pairs: list[tuple[str, str]]) -> list:
    """The pairs as parameters; those on a second architecture are hundreds, and slow together."""
    slow = pytest.mark.slow
    return [pytest.param(case, kind, marks=[] if kind == "qwen2" else slow) for case, kind in pairs]


two_kinds = pytest.mark.parametrize(
    ("case", "kind"),
    fast_on_qwen2(QWEN2 + [(case, kind) for case, kind in FIT if kind == "gemma3_text" and case in SHEETS]),
)
every_fit = pytest.mark.parametrize(("case", "kind"), fast_on_qwen2(FIT))


def batches():
    """Three batches of two rows: 4 prompt tokens and 5 completion tokens; the second row of each is shorter."""
    for number in range(3):
        ids = torch.randint(2, VOCAB, (2, 9), generator=torch.Generator().manual_seed(number))
        mask = torch.ones_like(ids)
        labels = ids.clone()
        labels[:, :4] = -100
        ids[1, 7:], mask[1, 7:], labels[1, 7:] = 0, 0, -100
        yield {"input_ids": ids, "attention_mask": mask, "labels": labels}


def context(seed: int = SEED, steps: int = 8) -> BuildContext:
    return BuildContext(steps, "", seed, 32, 2, batches)


def build(case: str, architecture: str, seed: int = SEED, **changes):
    method, settings, _ = parts(case)
    base = base_model(architecture)
    base.requires_grad_(False)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attach(base, method, settings | changes, context(seed)).eval()


def train(model, case: str, steps: int = 8, seed: int = SEED) -> list[float]:
    """Losses of the first batch before each of ``steps`` steps on it, by the method's optimizer and learning rate."""
    method, settings, rate = parts(case)
    model.train()
    torch.manual_seed(seed)
    optimizer = hooks_of(method, settings).optimizer(model, settings, rate, 0.0) or torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0
    )
    losses = []
    for step in range(steps):
        batch = next(batches())
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        hooks_of(method, settings).after_optimizer_step(model, step + 1)
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def finish(model, case: str) -> dict:
    """What the method does between training and saving."""
    method, settings, _ = parts(case)
    return hooks_of(method, settings).finish(model)


@dataclass(frozen=True)
class Run:
    """A trained model; tests must not change it."""

    model: nn.Module
    distance: float  # largest difference between its logits and those of the base model, before training
    losses: list[float]
    trainable: set[str]  # names of trainable tensors, with every name of a shared tensor
    changed: set[str]
    logits: Tensor  # after training


@functools.cache
def trained(case: str, architecture: str) -> Run:
    model = build(case, architecture)
    distance = float((logits(model) - logits(base_model(architecture))).abs().max())
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    losses = train(model, case)
    if case == "library:pvera":  # samples in training, but not in evaluation
        losses[-1] = float(model(**next(batches())).loss)
    after = model.state_dict()
    # AdaLoRA counts its ranks in a buffer that pruning changes.
    changed = {name for name in before if ".ranknum." not in name and not torch.equal(after[name], before[name])}
    places = {parameter.data_ptr() for parameter in model.parameters() if parameter.requires_grad}
    trainable = {name for name, tensor in after.items() if tensor.data_ptr() in places}
    finish(model, case)
    return Run(model, distance, losses, trainable, changed, logits(model))


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """Logits (2, 9, v) of the second batch, text positions only."""
    _, batch, _ = batches()
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, -9:]


@torch.no_grad()
def answers(model: nn.Module, rows: list[list[int]], **options) -> list[list[int]]:
    """Greedy continuations of left-padded prompts."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        **options,
    )
    return output[:, width:].tolist() if isinstance(output, Tensor) else output
