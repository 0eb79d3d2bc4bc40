"""Base models on the Hugging Face hub."""

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.config.schema import Model
from harness.errors import ModelFault

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # no pickles: those can run code


HUB_SECONDS = 5.0  # a hub that is slower than this to name a commit counts as unreachable


@dataclass(frozen=True)
class LocatedModel:
    """A base model on this machine."""

    folder: Path  # transformers' format
    origin: str  # hub, folder, gguf or package
    note: str | None  # what the record must say about the origin
    digest: str | None  # of the content; hub: the commit


def from_hub(model: Model, files: list[str] | None = None) -> LocatedModel:
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
    return LocatedModel(folder, "hub", note, folder.name)


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
