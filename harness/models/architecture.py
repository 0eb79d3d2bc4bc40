"""Width and family of a base model, read without loading it and without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema import Model, ModelSource
from harness.errors import ModelFault
from harness.extensions.imports import is_import_path
from harness.models import sources as model_sources

WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")  # what architectures call their width


@dataclass(frozen=True)
class Architecture:
    """What the default learning rate depends on."""

    width: int  # hidden size
    family: str  # model_type, e.g. llama


def read_architecture(model: Model) -> Architecture:
    """Width and family by the model's configuration; only ``config.json`` is fetched from the hub.

    Raises:
        ModelFault: the configuration cannot be read, or names no width.
    """
    values = _configuration(model)
    inner = values.get("text_config")
    text = {**values, **inner} if isinstance(inner, dict) else values
    width = next((text[name] for name in WIDTHS if isinstance(text.get(name), int)), None)
    if width is None:
        raise ModelFault(
            f"model={model.name}: its configuration gives no width ({', '.join(WIDTHS)}), from which the default "
            "learning rate follows; set trainer.learning_rate"
        )
    return Architecture(width, str(text.get("model_type", "")))


def _configuration(model: Model) -> dict[str, Any]:
    if model.source is ModelSource.gguf:
        return _of_gguf(model)
    if model.source is ModelSource.folder or is_import_path(model.source):
        return _of_file(model_sources.locate_config(model) / "config.json")
    given = model.config_only
    if isinstance(given, dict):
        return given
    if given is not None:
        path = model_sources.local_path(str(given))
        return _of_file(path / "config.json" if path.is_dir() else path)
    return _of_file(model_sources.locate_config(model) / "config.json")


def _of_file(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFault(f"{path} cannot be read as JSON ({error}); get the model again") from error
    if not isinstance(values, dict):
        raise ModelFault(f"{path} is not a JSON object; get the model again")
    return values


def _of_gguf(model: Model) -> dict[str, Any]:
    """From the header of the file."""
    from gguf import GGUFReader

    path = model_sources.local_path(str(model.path))
    try:
        fields = GGUFReader(path).fields
        family = str(fields["general.architecture"].contents())
        return {"model_type": family, "hidden_size": int(fields[f"{family}.embedding_length"].contents())}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelFault(
            f"model.path={model.path}: its GGUF header gives no width ({error}); set trainer.learning_rate, or get the "
            "file again"
        ) from error
