"""GGUF files made into folders that transformers loads: fetched once, converted once, kept in a cache.

The cache is ``$PEFT_HARNESS_CACHE`` (default ``~/.cache/peft-harness``). A model's folder is named by the
SHA-256 of its GGUF file and appears by one rename, so that a killed conversion leaves nothing that looks
whole. One process converts at a time; the others wait for it and use its result.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import ModelFault

log = logging.getLogger(__name__)


FORMAT = 1  # raise when a conversion comes to mean something else


ORIGIN = "origin.json"  # sizes of all files and what they were made from; written last


def cache_folder() -> Path:
    """Folder that keeps converted models; made when first written to."""
    return Path(os.environ.get("PEFT_HARNESS_CACHE") or Path.home() / ".cache" / "peft-harness").expanduser()


def file_sha256(path: Path) -> str:
    """SHA-256 of all bytes of a file (about 1.5 GB/s)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def converted_folder(name: str, sha256: str, obtain: Callable[[Path], Path]) -> Path:
    """Folder with the model of the GGUF file of that hash, in float32 safetensors.

    Where the cache lacks it, ``obtain(empty_folder)`` gives the path of the GGUF file. Safe for several
    processes at once.
    """
    final = cache_folder() / "models" / f"{name}-{sha256[:16]}-v{FORMAT}"
    if _is_whole(final):
        return final
    _writable(final.parent)
    with _only_one(final.with_name(final.name + ".lock")):
        if _is_whole(final):  # another process was faster
            return final
        # Leftovers are of killed processes: we hold the lock.
        for leftover in (*final.parent.glob(f".{final.name}.*"), final):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{final.name}.", dir=final.parent) as scratch:
            parts, built = Path(scratch) / "parts", Path(scratch) / "built"
            parts.mkdir()
            convert_gguf(obtain(parts), built, sha256)
            built.rename(final)
    return final


def convert_gguf(gguf: Path, into: Path, sha256: str) -> None:
    """Write the dequantised float32 model and the tokenizer of a GGUF file as transformers' folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, __version__

    log.info("converting %s to safetensors, once; this takes up to a minute", gguf.name)
    try:
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            # The weights are plain floats now; left in place, these make save_pretrained refuse.
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


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers' bars for local reading and writing off the console."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _is_whole(path: Path) -> bool:
    """Whether every file that the conversion wrote is there at its size (a full disk may cut one)."""
    try:
        sizes = json.loads((path / ORIGIN).read_text(encoding="utf-8"))["sizes"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFault(
            f"the model cache {path} cannot be made ({error.strerror}); set PEFT_HARNESS_CACHE to a writable folder"
        ) from error


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: the rename still keeps half-written folders out of sight
        yield
        return
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
