"""stage=claim: judge a claim about two arms by paired runs (docs/claims.md)."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.config.schema import ClaimSettings
from harness.report import claims
from harness.report.claims import ClaimResult
from harness.report.texts import short_path
from harness.runtime.terminal import printable
from harness.sweep.referee import Referee

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def judge_claim(settings: ClaimSettings, task: "Callable[[DictConfig], Any]") -> ClaimResult:
    """Run the claim of this command, and print its paragraph.

    Args:
        task: runs one composed configuration, as for each run of a sweep.

    Raises:
        ConfigFault: the claim cannot be decided by these runs; nothing has run.
        RunFault: a run failed; run the same command again to resume.
    """
    launcher, shared = _launcher(task)
    try:
        referee = Referee(settings, shared, launcher.prepare)
        result = referee.judge()
    finally:
        launcher.close()
    print(printable(claims.paragraph(result)))
    log.info("%s: %s", result.verdict.value, short_path(referee.folder / claims.NAME))
    return result


def _launcher(task: "Callable[[DictConfig], Any]") -> tuple[Any, list[str]]:
    """The launcher that this command would have with ``-m``, and the overrides that both arms share."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    running, loader = HydraConfig.get(), GlobalHydra.instance().config_loader()
    shared = [text for text in running.overrides.task if not text.lstrip("+~").startswith(("claim.", "stage="))]
    hydra = [text for text in running.overrides.hydra if not text.startswith("hydra.mode=")]
    composed = loader.load_configuration(running.job.config_name, [*shared, *hydra], RunMode.MULTIRUN)
    from hydra._internal.callbacks import Callbacks

    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=composed)
    return launcher, shared
