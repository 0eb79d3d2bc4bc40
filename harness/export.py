"""A tuned model as a plain folder of transformers, and its scores beside those of the run that it came from."""

import json
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ask, files, provenance, record
from harness.errors import ConfigFault, ModelFault
from harness.plan import Options, Plan
from harness.schema import Quantization, Source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models import Base
    from harness.score import Scores

# How far the merged logits may lie from the unmerged ones, as a share of the largest logit: rounding alone.
EXACT = 1e-3  # float32
ROUNDED = 5e-2  # half precision, and bases in 4 or 8 bits, whose arithmetic the merged model does not repeat
PROBE = 24  # tokens on which the two are compared


def write(options: Options) -> None:
    """Merge the run's adapter into its base and write it to ``export.dir``, whole or not at all.

    A base in 4 or 8 bits is dequantised first: the adapter was trained on those very numbers. What is written is
    read again and must answer as the unmerged model did; ``export.quantization`` is applied after that.

    Raises:
        ConfigFault: a setting is missing, the folder exists, or no finished run has that fingerprint.
        ModelFault: the method cannot be merged, or what was written does not answer as the run's model does.
    """
    folder = _target(options)
    found = ask.find(options)
    plan = ask.plan_of(found)
    _refuse_unmergeable(plan)
    kind = options.export.quantization
    with _whole(folder) as partial:
        note = _write_plain(plan, _adapter_folder(options, found), partial)
        if kind is not Quantization.none:
            _quantise(partial, kind, plan)
        note |= {"quantization": kind.value, "bytes": _size(partial)}
        kept = {"fingerprint": plan.fingerprint, "method": plan.method, "template": plan.data.template.value}
        text = json.dumps(kept | {"export": note, "plan": plan.as_dict()}, ensure_ascii=False, indent=1)
        files.atomic_write_text(partial / _note(), text)
    print(
        f"{folder}: run {plan.fingerprint} ({plan.method}) merged, {note['bytes']:,} bytes, quantization={kind.value}; "
        f"before quantisation its logits differed from the unmerged model's by {note['difference']:.1e} of the largest"
    )


def score(options: Options) -> None:
    """Score the exported model by the run's own protocol; print it beside the run's scores and keep it there.

    Raises:
        ConfigFault: a setting is missing, or no finished run has that fingerprint.
        ModelFault: the folder is no export of this run.
        DataFault: the rows are not those that the run was scored on.
    """
    if not options.run or not options.export.dir:
        raise ConfigFault("stage=score needs run=<fingerprint> and export.dir=<folder written by stage=export>")
    found = ask.find(options)
    plan = ask.plan_of(found)
    folder = Path(options.export.dir).expanduser().absolute()
    made = _read_note(folder, plan)
    scores, base_bytes = _scored(plan, folder)
    kept: dict[str, Any] = {
        "fingerprint": plan.fingerprint,
        "export": made | {"dir": str(folder)},
        "scores": {"before": found["scores"]["before"], "adapter": found["scores"]["after"], "export": scores.values},
        "signatures": scores.signatures,
        "memory_bytes": {"base": base_bytes},
        "code": provenance.code_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    place = record.path(options.runs_dir, found["fingerprint"]).parent / f"export-{made['quantization']}.json"
    files.atomic_write_text(place, json.dumps(kept, ensure_ascii=False, indent=1))
    _show(kept["scores"], f"{plan.fingerprint} ({plan.method}), export.quantization={made['quantization']}")
    print(place)


def _target(options: Options) -> Path:
    if not options.run or not options.export.dir:
        raise ConfigFault("stage=export needs run=<fingerprint> and export.dir=<folder to write>")
    from harness import quantized

    quantized.require(options.export.quantization, "export.quantization")
    folder = Path(options.export.dir).expanduser().absolute()
    if folder.exists():
        raise ConfigFault(f"export.dir={options.export.dir} exists, and nothing is overwritten; name another folder")
    return folder


def _refuse_unmergeable(plan: Plan) -> None:
    from harness import methods

    if not methods.traits(plan.method, plan.settings).mergeable:
        raise ModelFault(
            f"peft={plan.method} has no form without PEFT: what it learnt is no change of base weights; use the "
            "adapter folder of its run"
        )


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that takes its name on a clean exit and vanishes on any other."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_plain(plan: Plan, adapter: Path, folder: Path) -> dict[str, Any]:
    """The merged model in the base's precision, with its tokenizer; held to the unmerged model's logits."""
    from harness import adapters, methods, models

    base = models.load_base(plan.model)
    is_quantised = bool(getattr(base.model, "is_quantized", False))
    unmerged = adapters.load(models.fork(base, methods.changes_base(plan.method, plan.settings)), adapter, plan)
    wanted = _logits(unmerged, base.tokenizer)
    del unmerged
    fork = models.fork(base, private_weights=True)
    if is_quantised:
        fork = fork.dequantize(dtype=base.dtype)
    tuned: Any = adapters.load(fork, adapter, plan)
    merged = tuned.merge_and_unload().to(base.dtype)
    merged.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    largest = ROUNDED if is_quantised or base.dtype.itemsize < 4 else EXACT
    difference = _compare(wanted, folder, base, largest)
    return {"dtype": str(base.dtype).removeprefix("torch."), "difference": difference}


def _compare(wanted: "torch.Tensor", folder: Path, base: "Base", largest: float) -> float:
    """Largest difference of the written model's logits to ``wanted``, as a share of the largest logit."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=base.dtype, device_map={"": str(base.device)}, local_files_only=True, output_loading_info=True
    )
    written, loading = loaded
    stray = sorted(str(key) for kind in ("missing_keys", "unexpected_keys") for key in loading[kind])
    difference = float((_logits(written, base.tokenizer) - wanted).abs().max() / wanted.abs().max())
    if stray or not difference <= largest:
        what = f"weights that the architecture has no place for, such as {stray[0]}" if stray else "rounding"
        raise ModelFault(
            f"the merged model does not answer as the run's model does: its logits differ by {difference:.1e} of the "
            f"largest, above {largest:g} ({what}); use the adapter folder of the run"
        )
    return difference


def _logits(model: Any, tokenizer: "PreTrainedTokenizerBase") -> "torch.Tensor":
    """Logits (1, t, v) of a few tokens spread over the vocabulary, on the CPU."""
    import torch

    from harness.losses import arithmetic

    device = next(model.parameters()).device
    ids = torch.linspace(0, len(tokenizer) - 1, PROBE).long()[None].to(device)
    with torch.no_grad(), arithmetic(model):
        return model.eval()(input_ids=ids).logits.float().cpu()


def _quantise(folder: Path, kind: Quantization, plan: Plan) -> None:
    """Put the folder's linear layers into a few bits, in place of its weights."""
    from transformers import AutoModelForCausalLM

    from harness import models, quantized

    device = models.pick_device(plan.model)
    dtype = models.pick_dtype(plan.model.dtype, device)
    net: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": str(device)},
        local_files_only=True,
        **quantized.loading(kind, dtype),
    )
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    net.save_pretrained(folder)


def _scored(plan: Plan, folder: Path) -> "tuple[Scores, int]":
    """Scores of the folder's model by the plan's protocol, and the bytes that it holds."""
    from harness import models, quantized, shared
    from harness import score as scoring

    ask.require_same_rows(plan)
    model = replace(
        plan.model,
        source=Source.folder,
        path=str(folder),
        quantization=Quantization.none,  # the folder says how it is stored
        prune=0.0,
        packages=[],
        sha256=None,
        revision=None,
    )
    base = models.load_base(model)
    rows = shared.examples(plan, base)
    found = scoring.score(
        base.model,
        base.tokenizer,
        rows.splits[plan.scoring.split],
        rows.held_out,
        plan.scoring,
        equal_lengths=False,
        seed=plan.seed,
    )
    return found, quantized.storage_bytes(base.model)


def _read_note(folder: Path, plan: Plan) -> dict[str, Any]:
    """What the export said of itself. Raises ``ModelFault``: it is no export, or of another run."""
    try:
        note = json.loads((folder / _note()).read_text(encoding="utf-8"))
        made, owner = dict(note["export"]), note["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFault(
            f"export.dir={folder} is no export of the harness ({error}); write one with stage=export"
        ) from error
    if owner != plan.fingerprint:
        raise ModelFault(f"export.dir={folder} is of run {owner}, not of {plan.fingerprint}; name its own folder")
    return made


def _show(scores: dict[str, dict[str, float]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("score", *scores):
        table.add_column(column, justify="left" if column == "score" else "right")
    for name in scores["export"]:
        table.add_row(name, *(f"{values[name]:.4f}" if name in values else "-" for values in scores.values()))
    Console(file=sys.stdout).print(table)


def _adapter_folder(options: Options, found: dict[str, Any]) -> Path:
    return record.path(options.runs_dir, found["fingerprint"]).parent / found["adapter"]["path"]


def _note() -> str:
    from harness import adapters

    return adapters.NOTE


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
