"""Configurations composed as the command composes them."""

import copy
from functools import cache
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.config.compose import register_schema
from harness.shipped import shipped_folder

CONF = Path(shipped_folder("conf"))


def compose(*overrides: str) -> DictConfig:
    """The configuration that ``python -m harness <overrides>`` composes."""
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides))


composed_once = cache(compose)


def overridden(*overrides: str, onto: tuple[str, ...] = ()) -> DictConfig:
    """The same as ``compose`` in a tenth of the time; group choices go in ``onto``, values in ``overrides``.

    Runs Hydra's own steps on a copy of a configuration that was composed before.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
    config = copy.deepcopy(composed_once(*onto))
    ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
    return config
