"""Runs of this process that train together, many adapters in one pass over one base."""

from dataclasses import dataclass, field
from typing import ClassVar

from harness.pipeline.cache import ProcessCache
from harness.sweep.launchers.base import check_settings


@dataclass
class Packed:
    """Settings of ``hydra/launcher=packed``; ``harness.sweep.packs`` does the work, in this process."""

    max_runs: int | None  # in one pass, if they fit; null: as many as pay
    cache: ProcessCache = field(default_factory=ProcessCache, init=False, repr=False)  # what the runs share
    elsewhere: ClassVar[bool] = False  # all runs are on this machine

    def check(self) -> None:
        """Check the settings, before anything is composed.

        Raises:
            ConfigFault: a setting makes no sense, or greenlet is not installed.
        """
        check_settings("packed", "greenlet", {"max_runs": self.max_runs}, max_runs=1)

    def close(self) -> None:
        """There are no workers to end."""
