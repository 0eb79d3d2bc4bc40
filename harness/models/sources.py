"""Where base weights come from: the hub, a folder, a GGUF file, Python packages that carry one, or a function.

Every source ends as a local folder in transformers' format. No torch at import: ``weights_hash``, and
``locate_weights`` of a folder, are cheap enough for planning.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from harness.config.schema import Model, ModelSource
from harness.errors import ModelFault, first_line
from harness.extensions import imports
from harness.extensions.imports import is_import_path
from harness.models import gguf, packages
from harness.models.digests import file_digest
from harness.models.hub import LocatedModel, cached_snapshot, from_hub
from harness.record import store
from harness.shipped import shipped_folder

MIB = 1 << 20
WEIGHT_ENDINGS = (".safetensors", ".gguf")
READ_ENDINGS = (*WEIGHT_ENDINGS, ".json", ".model", ".txt", ".jinja", ".py")  # files that loading reads


def locate_weights(model: Model) -> LocatedModel:
    """Bring the weights to this machine and return their folder.

    ``source=package`` asks the hub first and falls back to the packages, with a note and a warning, because the GGUF
    in a package is quantized: its weights are not the hub's. Raises ``ModelFault`` if no source has the weights.
    """
    if is_import_path(model.source):
        return LocatedModel(_own_folder(model), "folder", f"base model from {model.source}")
    if model.source is ModelSource.hub:
        return from_hub(model)
    if model.source is ModelSource.folder:
        return LocatedModel(_existing(model, "folder"), "folder", None)
    if model.source is ModelSource.gguf:
        file = _existing(model, "GGUF file")
        sha = file_digest(file)
        if model.sha256 not in (None, sha):
            raise ModelFault(
                f"model.path={model.path}: model.sha256 expects {model.sha256}, got {sha}; "
                "get the file again, or correct the hash"
            )
        note = f"weights dequantized to float32 from {file.name}"
        return LocatedModel(gguf.converted_folder(file.stem, sha, lambda _: file), "gguf", note)
    return _from_hub_or_packages(model)


def _from_hub_or_packages(model: Model) -> LocatedModel:
    if not model.packages or not model.sha256:
        raise ModelFault(
            f"model={model.name}: model.source=package needs model.packages and model.sha256 "
            "(of the whole GGUF file); set both, or another model.source"
        )
    reason = "model.path is empty"
    if model.path:
        try:
            return from_hub(model)
        except ModelFault as fault:
            reason = str(fault).partition(";")[0]  # without its remedy: the packages are one
    names = ", ".join(part.requirement for part in model.packages)
    note = f"weights dequantized from the GGUF in {names}, so not identical to the hub's; {reason}"
    store.say_once(note)
    folder = gguf.converted_folder(model.name, model.sha256, lambda at: packages.assemble(model, at))
    return LocatedModel(folder, "package", note)


def locate_config(model: Model) -> Path:
    """The folder with the model's ``config.json``; only that file is fetched from the hub."""
    if model.source is ModelSource.hub:
        return from_hub(model, ["config.json"]).folder
    return locate_weights(model).folder


def locate_tokenizer(model: Model) -> Path | None:
    """The folder with the model's tokenizer if it is on this machine already; nothing is downloaded or converted."""
    if model.source is ModelSource.folder or is_import_path(model.source):
        return _place(model)
    return cached_snapshot(model.path, model.revision) if model.source is ModelSource.hub and model.path else None


def cached_folder(model: Model) -> Path | None:
    """``locate_tokenizer``, and the converted folder of a package's model if an earlier command has made it."""
    found = locate_tokenizer(model)
    if found is None and model.source is ModelSource.package and model.sha256:
        found = cached_snapshot(model.path, model.revision) if model.path else None
        found = found or gguf.converted_before(model.name, model.sha256)
    return found


def weights_hash(model: Model) -> str | None:
    """Content hash for the plan's fingerprint; needs no network.

    Folder (without cards): SHA-256 over relative names, sizes and the SHA-256 of each file. GGUF: the SHA-256 of the
    file. Package: the pinned SHA-256. Hub: None, because name and commit are in the plan. Every byte counts; a file
    that was read before is not read again (``digests``).
    """
    if model.source is ModelSource.hub:
        return None
    if model.source is ModelSource.package:
        return model.sha256
    path = _place(model)
    if path.is_file():
        return file_digest(path)
    result = hashlib.sha256()
    for file in _read_files(path):
        result.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        result.update(bytes.fromhex(file_digest(file)))
    return result.hexdigest()


def _read_files(path: Path) -> list[Path]:
    """The files that loading reads, in a fixed order."""
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and f.suffix in READ_ENDINGS)


def former_hash(model: Model) -> str | None:
    """What records of earlier versions hold for these files: above 64 MiB of weights, samples of their bytes."""
    if model.source not in (ModelSource.folder, ModelSource.gguf):
        return None
    path = _place(model)
    files = _read_files(path)
    total = sum(file.stat().st_size for file in files if file.suffix in WEIGHT_ENDINGS)
    result = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        result.update(f"{file.relative_to(path.parent if path.is_file() else path)}\0{size}\0".encode())
        sampled = file.suffix in WEIGHT_ENDINGS and total >= 64 * MIB
        blocks = max(2, 64 * size // total) if sampled else 0
        if not sampled or blocks * MIB >= size:
            result.update(bytes.fromhex(file_digest(file)))
            continue
        with file.open("rb") as stream:
            for block in range(blocks):
                stream.seek((size - MIB) * block // (blocks - 1))
                result.update(stream.read(MIB))
    return result.hexdigest()


def local_path(path: str) -> Path:
    """The path if it is absolute or exists in the working folder, else the same path in the shipped data."""
    given = Path(path).expanduser()
    return given if given.is_absolute() or given.exists() else shipped_folder("data") / path


def _place(model: Model) -> Path:
    """The local folder or file of a model that is neither on the hub nor in packages."""
    if is_import_path(model.source):
        return _own_folder(model)
    return _existing(model, "folder" if model.source is ModelSource.folder else "GGUF file")


@dataclass(frozen=True)
class _Own:
    """Settings of a model that the user's own function brings; equal if the function would be asked for the same."""

    model: Model = field(compare=False)
    key: str


def _own_folder(model: Model) -> Path:
    """The folder that the user's own function ``model.source`` makes; asked once per process.

    Raises:
        ModelFault: it fails, or returns something else than a folder in transformers' format.
    """
    return _made_folder(_Own(model, repr((model.source, model.name, model.path, model.revision, model.sha256))))


@lru_cache(maxsize=16)
def _made_folder(own: _Own) -> Path:
    source = own.model.source
    function = imports.load("model.source", source)
    try:
        made = function(model=own.model)
    except Exception as error:  # whatever a function of others raises
        raise ModelFault(f"model.source={source} fails ({first_line(error)}); fix it") from error
    if not isinstance(made, str | Path) or not (Path(made).expanduser() / "config.json").is_file():
        raise ModelFault(
            f"model.source={source} returns {imports.shown(made)}; return a folder with config.json, weights in "
            "safetensors and a tokenizer, as save_pretrained writes them"
        )
    return Path(made).expanduser().absolute()


def _existing(model: Model, what: str) -> Path:
    if not model.path:
        raise ModelFault(f"model.path is empty, but model.source={model.source} needs a {what}")
    path = local_path(model.path)
    if not (path.is_file() if what == "GGUF file" else path.is_dir()):
        looked = [Path(model.path).absolute()] + ([path] if path != Path(model.path) else [])
        raise ModelFault(
            f"model.path={model.path}: no such {what} (looked at {', '.join(map(str, looked))}); "
            f"correct model.path, or model.source={model.source}"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelFault(
            f"model.path={model.path}: {path} has no config.json; give a folder written by save_pretrained, "
            "or set model.source=gguf and the path of a GGUF file"
        )
    return path
