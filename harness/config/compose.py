"""Compose the cells of a grid by Hydra's own steps, doing only once what cells have in common.

Hydra spends 0.3 s per cell on its list of defaults and on reading files. Both depend only on the choices from groups,
of which a grid has few. The values (ranks, rates, seeds) are applied to a copy, as Hydra applies them.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, open_dict

from harness.config import schema
from harness.errors import raise_together
from harness.methods.registry import OFFER_FAULTS, OFFERED
from harness.shipped import shipped_folder

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


class Composer:
    """Configurations of cells, equal to what Hydra's ``load_sweep_config`` returns for each.

    Files that are edited while a sweep runs do not change its later cells.
    """

    def __init__(self, loader: "ConfigLoader", command: DictConfig) -> None:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.core.override_parser.overrides_parser import OverridesParser

        assert isinstance(loader, ConfigLoaderImpl)  # the only loader that Hydra has
        self._repository = loader.repository
        parser = OverridesParser.create(config_loader=loader)
        self._parsed = cache(lambda text: parser.parse_overrides([text])[0])
        self._whole = cache(lambda choices: loader.load_sweep_config(command, list(choices)))
        self._own = cache(lambda choices: _without_hydra(self._whole(choices)))

    def own(self, overrides: Sequence[str]) -> DictConfig:
        """The harness's configuration of one cell, without the node ``hydra``.

        Raises:
            HydraException: Hydra refuses an override.
        """
        return self._applied(overrides, self._own)

    def whole(self, overrides: Sequence[str]) -> DictConfig:
        """The same with the node ``hydra``, as Hydra's ``run_job`` expects it."""
        from hydra._internal.config_loader_impl import get_overrides_dirname

        composed = self._applied(overrides, self._whole)
        with open_dict(composed):
            job = composed.hydra.job
            own = [each for each in map(self._parsed, overrides) if not each.is_hydra_override()]
            composed.hydra.overrides.task = [each.input_line for each in own]
            names = job.config.override_dirname
            job.override_dirname = get_overrides_dirname(
                own,
                exclude_keys=names.exclude_keys,
                item_sep=names.item_sep,
                kv_sep=names.kv_sep,
            )
        return composed

    def task(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """The overrides that are not Hydra's own, with interpolations resolved, as Hydra lists them."""
        own = tuple(text for text in overrides if not self._parsed(text).is_hydra_override())
        return tuple(self.whole(overrides).hydra.overrides.task) if any("${" in text for text in own) else own

    def _applied(self, overrides: Sequence[str], base: Callable[[tuple[str, ...]], DictConfig]) -> DictConfig:
        """Compose the choices among the overrides with ``base``, and set the values on a copy."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        choices, values = self._split(overrides)
        composed = copy.deepcopy(base(choices))
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        return composed

    def _split(self, overrides: Sequence[str]) -> "tuple[tuple[str, ...], list[Override]]":
        """Overrides that decide which files are read, and those that only set values."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.types import RunMode

        parsed = [self._parsed(text) for text in overrides]
        ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
        choices, values = [], []
        for text, override in zip(overrides, parsed, strict=True):
            if self._chooses(override):
                choices.append(text)
            else:
                values.append(override)
        return tuple(choices), values

    def _chooses(self, override: "Override") -> bool:
        if override.is_hydra_override():
            return True
        group = self._repository.group_exists(override.key_or_group)
        return bool(group) and not isinstance(override.value(), dict)


def _without_hydra(whole: DictConfig) -> DictConfig:
    own = copy.deepcopy(whole)
    with open_dict(own):
        del own["hydra"]
    return own


def register_schema() -> None:
    """Let Hydra compose into typed nodes, and take launchers and sweepers from ``conf/`` alone.

    Raises:
        ConfigFault: a method that another package offers cannot be used.
    """
    raise_together(OFFER_FAULTS)
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the plugins' own presets
    store = ConfigStore.instance()
    for preset in (shipped_folder("conf") / "hydra").glob("*/*.yaml"):
        # Hydra would hold our file of the same name to the plugin's schema.
        store.repo["hydra"].get(preset.parent.name, {}).pop(preset.name, None)
    store.store(name="schema", node=schema.Config)
    store.store(name="sheets", node={method: sheet_values(method) for method in schema.SHEETS})
    _share_nodes(store.repo)


def _share_nodes(stored: dict[str, Any]) -> None:
    """Keep Hydra from copying every stored node each time it looks at a group: ``--help`` takes half as long.

    Safe, because ``ConfigStore.load`` copies the node that it returns.
    """
    from hydra.core.config_store import ConfigNode

    class SharedNode(ConfigNode):
        def __deepcopy__(self, memo: dict[int, Any]) -> "SharedNode":
            return self

    groups = [stored]
    for group in groups:
        for name, node in group.items():
            if isinstance(node, dict):
                groups.append(node)
            else:
                group[name] = SharedNode(**vars(node))


@contextmanager
def composing_once() -> Iterator[None]:
    """Keep Hydra from doing twice what it needs once.

    It composes the whole configuration only to read ``hydra.mode``, where nothing can have set it: ``-m`` says the
    mode; only an override of Hydra's own settings, an experiment, or a folder of the user's (``--config-dir``,
    ``hydra.searchpath``) could say otherwise. And ``--help`` walks over all groups twice.
    """
    from hydra._internal.hydra import Hydra

    usual, walk = Hydra.get_mode, Hydra.list_all_config_groups

    def get_mode(self: Any, config_name: str | None, overrides: list[str]) -> Any:
        names = [text.lstrip("+~") for text in overrides]
        foreign = any(text.startswith(("--config", "-cd", "-cp", "-cn")) for text in sys.argv[1:])
        if foreign or any(name.startswith(("hydra", "experiment")) for name in names):
            return usual(self, config_name, overrides)
        return None

    Hydra.get_mode = get_mode  # type: ignore[method-assign]
    Hydra.list_all_config_groups = cache(walk)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = usual  # type: ignore[method-assign]
        Hydra.list_all_config_groups = walk  # type: ignore[method-assign]


def sheet_values(method: str) -> dict[str, Any]:
    """The method's own values, as ``conf/peft/<method>.yaml`` gives them."""
    import yaml

    conf = OFFERED[method].conf if method in OFFERED else shipped_folder("conf")
    text = (conf / "peft" / f"{method}.yaml").read_bytes()
    values: dict[str, Any] = yaml.load(text, Loader=_fast_loader())[method]
    return values


@cache
def _fast_loader() -> Any:
    """OmegaConf's reader of YAML over the C parser, where it is there: ten times as fast, for 30 files each time."""
    import yaml
    from omegaconf._utils import get_yaml_loader

    usual = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return usual

    class Loader(yaml.CSafeLoader):
        """Reads numbers, names and dates as OmegaConf does."""

        yaml_implicit_resolvers = usual.yaml_implicit_resolvers
        yaml_constructors = usual.yaml_constructors

    return Loader
