"""Hydra's sweeper for studies, as an adapter to ``harness.sweep.study``: Optuna chooses the cells."""

from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from hydra_plugins.harness_launcher import PlanLauncher


class OptunaSweeper(Sweeper):
    """Settings: ``conf/hydra/sweeper/optuna.yaml``. The work is done in ``harness.sweep.study``."""

    def __init__(self, params: "DictConfig | None", max_batch_size: None = None, **settings: Any) -> None:
        self.params, self.settings = params, settings

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig") -> None:
        """Called by Hydra before ``sweep``."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> "list[list[JobReturn]]":
        """Run the study.

        Raises:
            ConfigFault: a setting is wrong, or no trial can work.
            RunFault: some trial failed; all others have run.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from harness.config.free_text import quoted
        from harness.errors import ConfigFault, raise_together
        from harness.extensions.imports import is_import_path
        from harness.scoring.custom import metric_faults
        from harness.sweep import presets, search_space, study
        from hydra_plugins.harness_launcher import job_return

        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        preset = [quoted(f"{key!s}={value!s}", sweeps=True) for key, value in (self.params or {}).items()]
        overrides = parser.parse_overrides([*preset, *arguments])
        presets.check_presets(self.hydra_context.config_loader, self.config, parser.parse_overrides(arguments))
        if self.config.scale is not None or self.config.paper.arms:
            raise ConfigFault(
                "Optuna proposes cells one by one, not the arms and levels of a file; use hydra/sweeper=basic"
            )
        shared = [str(each.input_line) for each in overrides if not each.is_sweep_override()]
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, shared)
        if composed.select.split is not None:
            raise ConfigFault(
                f"select.split={composed.select.split}: Optuna chooses by its own objective; leave select.split out, "
                "or use hydra/sweeper=basic"
            )
        if composed.refine.seeds is not None:
            raise ConfigFault(
                f"refine.seeds={composed.refine.seeds} follows a grid of learning rates; leave it out, or use "
                "hydra/sweeper=basic"
            )
        # The objective may be a score of the user's own.
        own = [str(each) for each in composed.scoring.metrics if is_import_path(str(each))]
        raise_together(list(metric_faults(own, list(composed.data.columns.keep))))
        session = study.open_session(
            search_space.StudySettings(**self.settings), overrides, self._launcher.prepare, composed
        )
        try:
            return [[job_return(outcome) for outcome in session.run()]]
        finally:
            self._launcher.close()

    @property
    def _launcher(self) -> "PlanLauncher":
        from hydra_plugins.harness_launcher import PlanLauncher

        # Another launcher would run equal plans twice, and stop at the first failure.
        assert isinstance(self.launcher, PlanLauncher)
        return self.launcher
