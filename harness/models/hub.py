"""Base models on the Hugging Face hub."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.config.schema import Model
from harness.errors import ModelFault, first_line
from harness.runtime.hub import HubSilent, ask_hub

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # no pickles: those can run code


@dataclass(frozen=True)
class LocatedModel:
    """A base model on this machine."""

    folder: Path  # in transformers' format
    origin: str  # hub, folder, gguf or package
    note: str | None  # what the record must say about the origin


def from_hub(model: Model, files: list[str] | None = None) -> LocatedModel:
    """The files that transformers needs (or only ``files``), all of one commit; without a network, from the hub cache.

    Raises:
        ModelFault: the hub does not know the model or refuses it, the download failed, there is no network and no
            complete copy in the cache, or the model has no safetensors weights.
    """
    from huggingface_hub import snapshot_download

    if not model.path:
        raise ModelFault("model.path is empty, but model.source=hub needs a hub name: model.path=org/name")
    commit, silence = hub_commit(model.path, model.revision)
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
            f"model.path={model.path} has no safetensors weights (in the hub cache: {folder}), and pickled weights are "
            "not loaded; convert the model, then set model.source=folder"
        )
    note = f"loaded from the hub cache, because the hub did not answer ({silence})" if silence else None
    return LocatedModel(folder, "hub", note)


@cache
def hub_commit(name: str, revision: str | None) -> tuple[str | None, str | None]:
    """The commit of a hub model; or None, and why the hub did not answer.

    Asked once per process, so that all runs of a sweep get the same answer and a missing network costs its timeout
    once. Raises ModelFault if the hub does not know the model.
    """
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        # model_info asks once; the file downloader would retry a missing network for 23 seconds.
        return ask_hub(lambda api, timeout: api.model_info(name, revision=revision, timeout=timeout).sha), None
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _hub_fault(name, revision, error, None) from error
    except HfHubHTTPError as error:
        return None, first_line(error)
    except HubSilent as silence:
        return None, str(silence)


def resolved_commit(name: str, revision: str | None) -> str | None:
    """The commit that the hub names for this revision, else that of the cached copy; None if neither is to be had.

    A commit is not asked about. Raises ModelFault if the hub does not know the model.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    commit, _ = hub_commit(name, revision)
    return commit or cached_commit(name, revision)


def cached_commit(name: str, revision: str | None, kind: str = "model") -> str | None:
    """The commit of the copy in the hub cache of this machine; None if there is none. Needs no network."""
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import constants

    ref = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "refs" / (revision or "main")
    try:
        commit = ref.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The folder of that copy."""
    from huggingface_hub import constants

    commit = cached_commit(name, revision)
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots" / str(commit)
    return folder if commit and folder.is_dir() else None


def _hub_fault(name: str, revision: str | None, error: Exception, silence: str | None) -> ModelFault:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    local = "or set model.source=folder and model.path to a local copy"
    if silence:
        return ModelFault(
            f"model.path={name}: the hub did not answer ({silence}) and its cache on this machine has no complete "
            f"copy; connect once, {local}"
        )
    if isinstance(error, GatedRepoError):
        return ModelFault(
            f"model.path={name} is gated: accept its license on the hub and log in (hf auth login), {local}"
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        at = f" at model.revision={revision}" if revision else ""
        return ModelFault(
            f"model.path={name}{at}: the hub knows no such model; correct the name, or log in if it is private"
        )
    return ModelFault(f"model.path={name}: the download failed ({first_line(error)}); run again, {local}")
