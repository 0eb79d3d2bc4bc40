"""Where base weights come from: the hub, a folder, a GGUF file, or Python packages that carry one.

Everything ends as a local folder in transformers' format. A GGUF file is converted once to safetensors and
kept under ``$PEFT_HARNESS_CACHE`` (default ``~/.cache/peft-harness``), in a folder named by the file's
SHA-256; it appears there by one rename, so that a killed conversion leaves nothing that looks whole.
No torch at import: ``digest`` and ``locate`` of a folder are cheap enough for planning.
"""

import hashlib
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import converted, record, shipped
from harness.errors import ModelFault
from harness.schema import Model, Source

MIB = 1 << 20
WEIGHT_ENDINGS = (".safetensors", ".gguf")
READ_ENDINGS = (*WEIGHT_ENDINGS, ".json", ".model", ".txt", ".jinja", ".py")  # what loading reads; no cards
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # no pickles: those can run code
HUB_SECONDS = 5.0  # a hub that is slower than this to name a commit counts as unreachable


@dataclass(frozen=True)
class Located:
    """A base model on this machine."""

    folder: Path  # transformers' format
    origin: str  # hub, folder, gguf or package
    note: str | None  # what the record must say about the origin
    digest: str | None  # of the content; hub: the commit


def locate(model: Model) -> Located:
    """Bring the weights to this machine and say where they are.

    ``source=package`` asks the hub first and falls back to the packages, with a note and a warning, because
    a package's GGUF is quantised: its weights are not the hub's. Raises ``ModelFault``.
    """
    if model.source is Source.hub:
        return _from_hub(model)
    if model.source is Source.folder:
        return Located(_existing(model, "folder"), "folder", None, digest(model))
    if model.source is Source.gguf:
        file = _existing(model, "GGUF file")
        sha = converted.file_sha256(file)
        if model.sha256 not in (None, sha):
            raise ModelFault(
                f"model.path={model.path}: model.sha256 expects {model.sha256}, got {sha}; "
                "get the file again, or correct the hash"
            )
        note = f"weights dequantised to float32 from {file.name}"
        return Located(converted.folder(file.stem, sha, lambda _: file), "gguf", note, sha)
    return _from_hub_or_packages(model)


def _from_hub_or_packages(model: Model) -> Located:
    if not model.packages or not model.sha256:
        raise ModelFault(
            f"model={model.name}: model.source=package needs model.packages and model.sha256 "
            "(of the whole GGUF file); set both, or another model.source"
        )
    reason = "model.path is empty"
    if model.path:
        try:
            return _from_hub(model)
        except ModelFault as fault:
            reason = str(fault).partition(";")[0]  # without the remedy: there is one in the packages
    names = ", ".join(part.requirement for part in model.packages)
    note = f"weights dequantised from the GGUF in {names}, so not those of the hub; {reason}"
    record.say_once(note)
    folder = converted.folder(model.name, model.sha256, lambda at: converted.assemble(model, at))
    return Located(folder, "package", note, model.sha256)


def locate_config(model: Model) -> Path:
    """Folder that holds the model's ``config.json``; from the hub, only that file is fetched."""
    if model.source is Source.hub:
        return _from_hub(model, ["config.json"]).folder
    return locate(model).folder


def digest(model: Model) -> str | None:
    """Content hash for the plan's fingerprint; no network.

    Folder (cards apart) and GGUF: SHA-256 over relative names, sizes and bytes; above 64 MiB of weights,
    their bytes are sampled (64 MiB, evenly, the ends included). Package: the pinned SHA-256. Hub: None,
    because the name and the revision stand in the plan.
    """
    if model.source is Source.hub:
        return None
    if model.source is Source.package:
        return model.sha256
    path = _existing(model, "folder" if model.source is Source.folder else "GGUF file")
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and f.suffix in READ_ENDINGS)
    stamp = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return _digest_of(path, stamp)


@cache
def _digest_of(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    total = sum(size for name, size, _ in stamp if name.endswith(WEIGHT_ENDINGS))
    result = hashlib.sha256()
    for name, size, _ in stamp:
        file = Path(name)
        result.update(f"{file.relative_to(path.parent if path.is_file() else path)}\0{size}\0".encode())
        sampled = name.endswith(WEIGHT_ENDINGS) and total >= 64 * MIB
        blocks = max(2, 64 * size // total) if sampled else 0
        with file.open("rb") as stream:
            if not sampled or blocks * MIB >= size:
                result.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for block in range(blocks):
                stream.seek((size - MIB) * block // (blocks - 1))
                result.update(stream.read(MIB))
    return result.hexdigest()


def find(path: str) -> Path:
    """An absolute or working-directory path where it exists, else the same path under the shipped data."""
    given = Path(path).expanduser()
    return given if given.is_absolute() or given.exists() else shipped("data") / path


def _existing(model: Model, what: str) -> Path:
    if not model.path:
        raise ModelFault(f"model.path is empty, but model.source={model.source.value} needs a {what}")
    path = find(model.path)
    if not (path.is_file() if what == "GGUF file" else path.is_dir()):
        looked = [Path(model.path).absolute()] + ([path] if path != Path(model.path) else [])
        raise ModelFault(
            f"model.path={model.path}: no such {what} (looked at {', '.join(map(str, looked))}); "
            f"correct model.path, or model.source={model.source.value}"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelFault(
            f"model.path={model.path}: {path} has no config.json; give a folder written by save_pretrained, "
            "or set model.source=gguf and the path of a GGUF file"
        )
    return path


def _from_hub(model: Model, files: list[str] | None = None) -> Located:
    """The files that transformers needs, at one commit; the local hub cache where there is no network."""
    from huggingface_hub import snapshot_download

    if not model.path:
        raise ModelFault("model.path is empty, but model.source=hub needs a hub name: model.path=org/name")
    commit, silence = _hub_commit(model.path, model.revision)
    try:
        folder = Path(
            snapshot_download(
                model.path,
                revision=commit or model.revision,
                allow_patterns=files or HUB_FILES + (["*.py"] if model.trust_remote_code else []),
                ignore_patterns=["original/*", "onnx/*"],
                local_files_only=commit is None,
            )
        )
    except Exception as error:
        raise _hub_fault(model.path, model.revision, error, silence) from error
    if not files and not any(folder.glob("*.safetensors")):
        raise ModelFault(
            f"model.path={model.path} has no safetensors weights (in the hub cache: {folder}), and pickled "
            "ones are not loaded; convert the model, then set model.source=folder"
        )
    note = f"hub cache used, because the hub gave no answer ({silence})" if silence else None
    return Located(folder, "hub", note, folder.name)


@cache
def _hub_commit(name: str, revision: str | None) -> tuple[str | None, str | None]:
    """Commit of a hub model, or None and why the hub gave no answer.

    Asked once per process, so that all runs of a sweep get the same answer and an absent network costs once.
    """
    answer: list[tuple[str | None, str | None] | ModelFault] = []

    def ask() -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            # model_info asks once; the file downloader would retry an absent network for 23 seconds.
            answer.append((HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS).sha, None))
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            answer.append(_hub_fault(name, revision, error, None))
        except Exception as error:
            answer.append((None, _brief(error)))

    # In a thread: a name server that stays silent honours no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    if not answer:
        return None, f"none in {HUB_SECONDS:g} s"
    if isinstance(answer[0], ModelFault):
        raise answer[0]
    return answer[0]


def _hub_fault(name: str, revision: str | None, error: Exception, silence: str | None) -> ModelFault:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    local = "or set model.source=folder and model.path to a local copy"
    if silence:
        return ModelFault(
            f"model.path={name}: the hub gave no answer ({silence}) and its cache on this machine holds no "
            f"complete copy; connect once, {local}"
        )
    if isinstance(error, GatedRepoError):
        return ModelFault(
            f"model.path={name} is gated: accept its licence on the hub and log in (hf auth login), {local}"
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        at = f" at model.revision={revision}" if revision else ""
        return ModelFault(
            f"model.path={name}{at}: the hub knows no such model; correct the name, or log in if it is private"
        )
    return ModelFault(f"model.path={name}: the download failed ({_brief(error)}); run again, {local}")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:160]}"
