"""stage=export: a tuned model as a plain transformers folder, merged and without PEFT, with a model card.

Of a run, or of an adapter from elsewhere; and as one GGUF file where llama.cpp's converter is installed.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Gguf, Quantization
from harness.errors import ConfigFault, ModelFault
from harness.plan.from_record import find_record, plan_of_record
from harness.plan.spec import Options, Plan
from harness.record import store
from harness.record.adapter_files import require_whole
from harness.record.files import replacing, write_json
from harness.report.card import external_card, model_card
from harness.runtime.notices import without_progress_bars

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.base import Base

# Largest difference of the merged logits from the unmerged ones, as a fraction of the largest logit: rounding only.
EXACT = 1e-3  # float32
ROUNDED = 5e-2  # half precision, and bases in 4 or 8 bits, whose arithmetic the merged model does not repeat

PROBE = 24  # tokens on which the two are compared


def export_model(options: Options) -> None:
    """Merge the run's adapter into its base and write it to ``export.dir``, complete or not at all.

    A base in 4 or 8 bits is dequantized first: the adapter was trained on exactly those values. The written model
    is loaded again, and its logits must equal those of the unmerged model; ``export.quantization`` is applied last.

    Raises:
        ConfigFault: a setting is missing, the folder exists, or no finished run has that fingerprint.
        ModelFault: the method cannot be merged, or the written model has other logits than the run's model.
    """
    folder = _target(options)
    record = find_record(options)
    plan = plan_of_record(record)
    _refuse_unmergeable(plan)
    kind = options.export.quantization
    with without_progress_bars(), replacing(folder) as partial:
        partial.mkdir()
        note = _write_plain(plan, require_whole(store.adapter_folder(options.runs_dir, record), record), partial)
        if kind is not Quantization.none:
            _quantize(partial, kind, plan)
        _convert(partial, folder, options)
        note |= {"quantization": kind.value, "bytes": _size(partial)}
        about = {"fingerprint": plan.fingerprint, "method": plan.method, "template": plan.data.template}
        write_json(partial / note_name(), about | {"export": note, "plan": plan.as_dict()})
        (partial / "README.md").write_text(model_card(record, "merged"), encoding="utf-8")
        _refuse_existing(folder)  # again, because writing takes minutes
    print(
        f"{folder}: run {plan.fingerprint} ({plan.method}) merged, {note['bytes']:,} bytes, quantization={kind.value}; "
        f"before quantization its logits differed from the unmerged model's by {note['difference']:.1e} of the largest"
    )
    _say_how_to_convert(folder, options)


def export_external(options: Options, plan: Plan) -> None:
    """Merge the adapter of ``adapter_path`` into the base of this command's plan, and write it to ``export.dir``.

    Raises:
        ConfigFault: a setting is missing, or the folder exists.
        ModelFault: the adapter cannot be read or merged, or the written model has other logits.
    """
    from harness.adapters.external import load_external, other_base
    from harness.models import base as model_base
    from harness.models.peft_adapters import find_adapter

    folder, [path] = _target(options), options.adapter_paths
    adapter = find_adapter(path)
    base = model_base.load_base(plan.model)
    model: Any = load_external(base, adapter)
    if getattr(base.model, "is_quantized", False) or not hasattr(model.base_model, "merge_and_unload"):
        raise ModelFault(
            f"adapter_path={path} ({adapter.method}) cannot be merged into model={plan.model.name}; use an unquantized "
            "base, and a method that changes weights"
        )
    with without_progress_bars(), replacing(folder) as partial:
        partial.mkdir()
        wanted = _logits(model, base.tokenizer)
        merged = model.merge_and_unload().to(base.dtype)
        merged.save_pretrained(partial)
        base.tokenizer.save_pretrained(partial)
        difference = _compare(wanted, partial, base, ROUNDED if base.dtype.itemsize < 4 else EXACT)
        if options.export.quantization is not Quantization.none:
            _quantize(partial, options.export.quantization, plan)
        _convert(partial, folder, options)
        write_json(partial / note_name(), {"method": adapter.method, "external": adapter.as_dict()})
        card = external_card(plan.as_dict(), adapter.as_dict(), adapter.method)
        (partial / "README.md").write_text(card, encoding="utf-8")
        _refuse_existing(folder)
    note = other_base(adapter, plan.model)
    print(
        f"{folder}: {adapter.name} ({adapter.method}) merged into {plan.model.name}; its logits differed from the "
        f"unmerged model's by {difference:.1e} of the largest" + (f"; {note}" if note else "")
    )
    _say_how_to_convert(folder, options)


CONVERTERS = ("convert_hf_to_gguf.py", "convert-hf-to-gguf")  # of llama.cpp, as installations name it


def find_converter(given: str | None) -> Path | None:
    """llama.cpp's converter; None if there is none.

    Raises:
        ConfigFault: the given one is not there.
    """
    if given is not None:
        file = Path(given).expanduser().absolute()
        if not file.is_file():
            raise ConfigFault(f"export.converter={given} is not a file; name llama.cpp's {CONVERTERS[0]}, or null")
        return file
    found = next(filter(None, map(shutil.which, CONVERTERS)), None)
    return Path(found) if found else None


def conversion(converter: str, folder: Path, kind: Gguf, into: Path) -> list[str]:
    """The command that writes the folder's model as one file."""
    program = [sys.executable, converter] if converter.endswith(".py") else [converter]
    return [*program, str(folder), "--outfile", str(into), "--outtype", kind.value]


def _convert(partial: Path, folder: Path, options: Options) -> None:
    """Write the GGUF file, if it is asked for and can be made here."""
    kind, converter = options.export.gguf, find_converter(options.export.converter)
    if kind is Gguf.none or converter is None:
        return
    command = conversion(str(converter), partial, kind, partial / f"model-{kind.value}.gguf")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (partial / f"model-{kind.value}.gguf").is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ModelFault(
            f"export.gguf={kind.value}: {converter.name} failed ({' / '.join(last) or done.returncode}); it needs "
            "llama.cpp's requirements and supports only some architectures; install the requirements, or set "
            "export.gguf=none"
        )


def _say_how_to_convert(folder: Path, options: Options) -> None:
    """Where the converter is missing, what to type."""
    kind = options.export.gguf
    if kind is Gguf.none or find_converter(options.export.converter) is not None:
        return
    into = folder / f"model-{kind.value}.gguf"
    command = [
        "python",
        f"llama.cpp/{CONVERTERS[0]}",
        str(folder),
        "--outfile",
        str(into),
        "--outtype",
        kind.value,
    ]
    print(
        f"no GGUF file was written, because {CONVERTERS[0]} is not on the PATH. To write it:\n"
        "  git clone --depth 1 https://github.com/ggml-org/llama.cpp\n"
        "  pip install -r llama.cpp/requirements/requirements-convert_hf_to_gguf.txt\n"
        f"  {shlex.join(command)}"
    )


def _target(options: Options) -> Path:
    if not (options.run or options.adapter_paths) or not options.export.dir:
        raise ConfigFault(
            "stage=export needs run=<fingerprint> and export.dir=<folder to write>; or adapter_path instead of run"
        )
    find_converter(options.export.converter)
    from harness.models import quantization

    quantization.require_bitsandbytes(options.export.quantization, "export.quantization")
    folder = Path(options.export.dir).expanduser().absolute()
    _refuse_existing(folder)
    return folder


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise ConfigFault(f"export.dir={folder} exists and is not overwritten; name another folder")


def _refuse_unmergeable(plan: Plan) -> None:
    from harness.methods.registry import traits_of

    if not traits_of(plan.method, plan.settings).mergeable:
        raise ModelFault(
            f"peft={plan.method} cannot be exported without PEFT, because it does not change base weights; use the "
            "adapter folder of its run"
        )


def _write_plain(plan: Plan, adapter: Path, folder: Path) -> dict[str, Any]:
    """Write the merged model with its tokenizer, in the base's precision, and check its logits."""
    from harness.adapters import save_load
    from harness.methods.registry import changes_base
    from harness.models import base as model_base
    from harness.models import quantization

    base = model_base.load_base(plan.model)
    is_quantized = bool(getattr(base.model, "is_quantized", False))
    unmerged = save_load.load_adapter(model_base.fork(base, changes_base(plan.method, plan.settings)), adapter, plan)
    wanted = _logits(unmerged, base.tokenizer)
    del unmerged
    fork = model_base.fork(base, private_weights=True)
    if is_quantized:
        fork = quantization.dequantized(fork, base.dtype)
    tuned: Any = save_load.load_adapter(fork, adapter, plan)
    merged = tuned.merge_and_unload().to(base.dtype)
    merged.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    largest = ROUNDED if is_quantized or base.dtype.itemsize < 4 else EXACT
    difference = _compare(wanted, folder, base, largest)
    return {"dtype": str(base.dtype).removeprefix("torch."), "difference": difference}


def _compare(wanted: "torch.Tensor", folder: Path, base: "Base", largest: float) -> float:
    """Largest difference of the written model's logits from ``wanted``, as a fraction of the largest logit.

    Raises:
        ModelFault: it is above ``largest``, or weights are missing or left over.
    """
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=base.dtype, device_map={"": str(base.device)}, local_files_only=True, output_loading_info=True
    )
    written, loading = loaded
    stray = sorted(str(key) for kind in ("missing_keys", "unexpected_keys") for key in loading[kind])
    difference = float((_logits(written, base.tokenizer) - wanted).abs().max() / wanted.abs().max())
    if stray or not difference <= largest:
        what = f"weights that the architecture cannot hold, such as {stray[0]}" if stray else "rounding"
        raise ModelFault(
            f"the merged model differs from the run's model: its logits differ by {difference:.1e} of the "
            f"largest, above {largest:g} ({what}); use the adapter folder of the run"
        )
    return difference


def _logits(model: Any, tokenizer: "PreTrainedTokenizerBase") -> "torch.Tensor":
    """Logits (1, t, v) of a few tokens spread over the vocabulary, on the CPU."""
    import torch

    from harness.models.device import base_precision

    device = next(model.parameters()).device
    ids = torch.linspace(0, len(tokenizer) - 1, PROBE).long()[None].to(device)
    with torch.no_grad(), base_precision(model):
        return model.eval()(input_ids=ids).logits.float().cpu()


def _quantize(folder: Path, kind: Quantization, plan: Plan) -> None:
    """Quantize the linear layers of the model in the folder, in place."""
    from transformers import AutoModelForCausalLM

    from harness.models import quantization
    from harness.models.device import pick_device, pick_dtype

    device = pick_device(plan.model)
    dtype = pick_dtype(plan.model.dtype, device)
    net: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": str(device)},
        local_files_only=True,
        **quantization.loading_arguments(kind, dtype),
    )
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    net.save_pretrained(folder)


def note_name() -> str:
    """Name of the file that says which run an export is of."""
    from harness.models.peft_adapters import ADAPTER_NOTE

    return ADAPTER_NOTE


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
