"""The architecture of a base model without its weights, on the meta device."""

import copy
import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from harness.config.schema import Model
from harness.errors import ModelFault
from harness.models import sources as model_sources


def load_config(model: Model) -> PretrainedConfig:
    """The base's configuration: from ``model.config_only`` if set, else from the folder of the weights.

    Raises:
        ModelFault: it cannot be read, or transformers does not know the architecture.
    """
    given = model.config_only
    if given is None:
        folder = model_sources.locate_config(model)
        return AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    if not isinstance(given, dict):
        path = model_sources.local_path(str(given))
        path = path / "config.json" if path.is_dir() else path
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFault(f"model.config_only={model.config_only} cannot be read as JSON ({error})") from error
    try:
        return AutoConfig.for_model(**given)
    except (TypeError, ValueError) as error:
        raise ModelFault(
            f"model.config_only is not an architecture that transformers knows ({error}); give model_type and "
            "the sizes as in a config.json"
        ) from error


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device: shapes and tied weights, but no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config))
