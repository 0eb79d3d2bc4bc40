"""Adapters in PEFT's format, whoever trained them: a folder, or a name on the hub. Reads files only: no torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ModelFault, first_line
from harness.methods.library import BOOKKEEPING, method_of_type
from harness.models.hub import resolved_commit
from harness.models.sources import local_path
from harness.record.files import file_sha256

CONFIG = "adapter_config.json"
ADAPTER_NOTE = "harness.json"  # beside adapters that the harness trained
KEY = "adapter_path"
FILES = ["adapter_*.json", "adapter_*.safetensors", ADAPTER_NOTE]  # no pickles: those can run code


@dataclass(frozen=True)
class ExternalAdapter:
    """An adapter on this machine, and what its own files say about it."""

    name: str  # as it was named: hub name, or the last parts of its folder
    folder: Path
    commit: str | None  # on the hub
    method: str  # PEFT's type, as the harness calls it
    settings: Mapping[str, Any]  # of the adapter, as its configuration holds them
    base: str | None  # name of the base model that it was trained on
    template: str | None  # of its prompts, if the harness trained it
    files: Mapping[str, int]  # bytes by name
    numbers: int  # that its weights hold
    sha256: str  # of its weights and of what decides how they are used

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(self.files.values())

    def is_of_other_base(self, path: str | None) -> bool:
        """Whether it names another base on the hub than ``path``; a path of this machine says nothing against it."""
        return bool(self.base and path and not local_path(path).exists() and self.base != path)

    def as_dict(self) -> dict[str, Any]:
        """What a record keeps: no path of this machine."""
        return {
            "name": self.name,
            "commit": self.commit,
            "sha256": self.sha256,
            "base": self.base,
            "files": dict(self.files),
            "numbers": self.numbers,
        }


def find_adapter(path: str, setting: str = KEY) -> ExternalAdapter:
    """The adapter in a folder, or of that name on the hub.

    Args:
        setting: that names it, for messages.

    Raises:
        ModelFault: there is none, it is not in PEFT's format, or its weights are pickled.
    """
    folder, commit = _located(path, setting)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = str(config["peft_type"]).lower()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFault(
            f"{setting}={path} holds no adapter in PEFT's format ({CONFIG}: {first_line(error)}); name the folder that "
            "save_pretrained wrote, or a hub name"
        ) from error
    weights = sorted(folder.glob("adapter_*.safetensors"))
    if not weights:
        pickled = next(iter(folder.glob("adapter_*.bin")), None)
        what = f"only {pickled.name}, which is pickled and is not loaded" if pickled else "no adapter_model.safetensors"
        raise ModelFault(
            f"{setting}={path} has {what}; load it once with PEFT and save it with "
            "save_pretrained(safe_serialization=True)"
        )
    files = {file.name: file.stat().st_size for file in [folder / CONFIG, *weights]}
    base = config.get("base_model_name_or_path")
    return ExternalAdapter(
        name=path if commit else "/".join(folder.parts[-2:]),
        folder=folder,
        commit=commit,
        method=method_of_type(kind),
        settings={key: value for key, value in sorted(config.items()) if key not in BOOKKEEPING and value is not None},
        base=_public(base),
        template=_template(folder),
        files=files,
        numbers=stored_numbers(folder),
        sha256=_content(config, weights),
    )


def stored_numbers(folder: Path) -> int:
    """How many numbers the safetensors files store, read from their headers."""
    from safetensors import safe_open

    total = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                size = 1
                for length in file.get_slice(key).get_shape():
                    size *= length
                total += size
    return total


def _located(path: str, setting: str) -> tuple[Path, str | None]:
    folder = Path(path).expanduser().absolute()
    if folder.is_dir():
        return folder, None
    if folder.exists() or path.count("/") != 1 or path.startswith(("/", ".", "~")):
        raise ModelFault(f"{setting}={path} is not a folder; name one in PEFT's format, or a hub name such as org/name")
    from huggingface_hub import snapshot_download

    commit = resolved_commit(path, None)
    try:
        return Path(snapshot_download(path, revision=commit, allow_patterns=FILES)), commit or "unknown"
    except Exception as error:  # of the hub, of its cache, or of the network
        raise ModelFault(
            f"{setting}={path} is neither a folder here nor a model that the hub gives ({first_line(error)}); correct "
            "it, or log in with `hf auth login`"
        ) from error


def _public(base: Any) -> str | None:
    """The base's name if it is one on the hub; paths of other machines say nothing here, and may say too much."""
    text = str(base or "")
    return text if text.count("/") <= 1 and text and not text.startswith(("/", ".", "~", "\\")) else None


def _template(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / ADAPTER_NOTE).read_text(encoding="utf-8"))["plan"]["data"]["template"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _content(config: Mapping[str, Any], weights: list[Path]) -> str:
    """Weights and settings; not the name of the base, nor the version of PEFT that wrote them."""
    own = {key: value for key, value in config.items() if key not in BOOKKEEPING - {"peft_type"} and value is not None}
    for key, value in own.items():  # PEFT keeps these in sets, and writes them in any order
        own[key] = sorted(value) if isinstance(value, list) and key.endswith("modules") else value
    result = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for file in weights:
        result.update(file_sha256(file).encode())
    return result.hexdigest()
