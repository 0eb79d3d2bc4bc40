"""GGUF files converted to folders that transformers loads, once, and kept in a cache.

The cache is ``$PEFT_HARNESS_CACHE`` (default ``~/.cache/peft-harness``). A model's folder is named after the SHA-256 of
its GGUF file and appears by one rename, so that a killed conversion leaves nothing that looks complete. One process
converts at a time; the others wait for it and use its result.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import ModelFault
from harness.record.files import PARTIAL, partial_path, remove, replacing
from harness.runtime.caches import cache_folder
from harness.runtime.notices import without_progress_bars

log = logging.getLogger(__name__)


FORMAT = 1  # increase when the conversion changes its result
ORIGIN = "origin.json"  # sizes of all files and what they were made from; written last


def converted_folder(name: str, sha256: str, obtain: Callable[[Path], Path]) -> Path:
    """The folder with the model of the GGUF file with this hash, in float32 safetensors.

    Safe for several processes at once.

    Args:
        obtain: given an empty folder, returns the path of the GGUF file; called if the cache lacks the model.

    Raises:
        ModelFault: the cache cannot be written to, or transformers cannot convert the file.
    """
    final = _final_folder(name, sha256)
    if _is_complete(final):
        return final
    _create(final.parent)
    with _only_one(final.with_name(final.name + ".lock")):
        if _is_complete(final):  # another process was faster
            return final
        # We hold the lock, so these are what killed processes left.
        for leftover in (*final.parent.glob(f".{final.name}.*{PARTIAL}"), final):
            remove(leftover)
        parts = partial_path(final)
        parts.mkdir()
        try:
            with replacing(final) as built:
                convert_gguf(obtain(parts), built, sha256)
        finally:
            remove(parts)
    return final


def converted_before(name: str, sha256: str) -> Path | None:
    """The folder that ``converted_folder`` has made earlier; None if it has not."""
    final = _final_folder(name, sha256)
    return final if _is_complete(final) else None


def _final_folder(name: str, sha256: str) -> Path:
    return cache_folder() / "models" / f"{name}-{sha256[:16]}-v{FORMAT}"


def convert_gguf(gguf: Path, into: Path, sha256: str) -> None:
    """Write model (dequantized to float32) and tokenizer of a GGUF file into a folder that transformers loads."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, __version__

    log.info("converting %s to safetensors; done once, takes up to a minute", gguf.name)
    try:
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            # The weights are plain floats now; save_pretrained would refuse if these remained.
            vars(model).update(hf_quantizer=None, is_quantized=False)
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(into)
            tokenizer.save_pretrained(into)
    except (ValueError, NotImplementedError, KeyError, OSError, ImportError) as error:
        raise ModelFault(
            f"{gguf.name} cannot be converted by transformers {__version__} "
            f"({type(error).__name__}: {error}); use a GGUF of a supported architecture, "
            "or model.source=folder"
        ) from error
    sizes = {file.name: file.stat().st_size for file in sorted(into.iterdir())}
    origin = {"gguf": gguf.name, "sha256": sha256, "transformers": __version__, "sizes": sizes}
    (into / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _is_complete(path: Path) -> bool:
    """Whether every file that the conversion wrote is there with its size (a full disk may truncate one)."""
    try:
        sizes = json.loads((path / ORIGIN).read_text(encoding="utf-8"))["sizes"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _create(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFault(
            f"the model cache {path} cannot be created ({error.strerror}); set PEFT_HARNESS_CACHE to a writable folder"
        ) from error


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that the system releases however the process ends: flock, or msvcrt's on Windows."""
    from filelock import FileLock

    with FileLock(lock):
        yield
