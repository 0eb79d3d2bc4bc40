"""Plans for the scripts beside this one."""

from collections.abc import Sequence
from typing import Any


def read_plan(overrides: Sequence[str]) -> tuple[Any, Any]:
    """Plan and options of ``python -m harness <overrides>``."""
    from hydra import compose, initialize_config_dir

    from harness.config.compose import register_schema
    from harness.plan.read import read_config
    from harness.shipped import shipped_folder

    register_schema()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3"):
        return read_config(compose("config", overrides=list(overrides)))
