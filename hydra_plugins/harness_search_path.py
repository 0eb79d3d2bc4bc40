"""Hydra's search path: also the folders ``conf`` of the packages that offer methods."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

PROVIDER = "peft-harness"


class OfferedConf(SearchPathPlugin):
    """Options of these folders stand beside ours; an option of ours comes first if both have it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it composes."""
        from harness.extensions.entry_points import conf_folders

        for folder in conf_folders():
            search_path.append(provider=PROVIDER, path=f"file://{folder}")
