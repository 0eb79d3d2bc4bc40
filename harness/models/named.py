"""A second model beside the base, by one word: a file of ``conf/model/``, a folder, or a name on the hub."""

from dataclasses import replace
from typing import Any

from harness.config.schema import DType, Model, ModelSource, Quantization
from harness.models.sources import local_path
from harness.shipped import shipped_folder


def named_model(name: str) -> Model:
    """The model that the word names; nothing is loaded or asked.

    Files of ``conf/model/`` come first, so that a folder of the same name is written as ``./name``.
    """
    found = _from_conf(name)
    if found is not None:
        return found
    blank = Model(
        name=name, source=ModelSource.hub, path=name, revision=None, packages=[], sha256=None, config_only=None,
        dtype=DType.auto, quantization=Quantization.none, prune=0.0, device="auto", device_map=None,
        attn_implementation=None, trust_remote_code=False,
    )  # fmt: skip
    return replace(blank, source=ModelSource.folder) if local_path(name).is_dir() else blank


def _from_conf(name: str) -> Model | None:
    """The values of the harness's own file; None if there is none, or it lacks a path."""
    from omegaconf import OmegaConf

    folder = shipped_folder("conf") / "model"
    file = folder / f"{name}.yaml"
    if "/" in name or name == "hub" or not file.is_file():
        return None
    values: Any = OmegaConf.structured(Model)
    for each in (folder / "hub.yaml", file):
        own: Any = OmegaConf.to_container(OmegaConf.load(each), resolve=False)
        values = OmegaConf.merge(values, {key: value for key, value in own.items() if key != "defaults"})
    made = OmegaConf.to_object(values)
    return made if isinstance(made, Model) else None
