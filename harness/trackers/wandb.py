"""Weights & Biases."""

from typing import Any

from harness.config.schema import Tracker
from harness.errors import RunFault


class WandbRun:
    """A run of Weights & Biases.

    Continuing a run offline makes a second folder with the same id; ``wandb sync`` joins the two.
    """

    def __init__(
        self, tracker: Tracker, config: dict[str, Any], group: str, name: str, tags: list[str], run_id: str
    ) -> None:
        import wandb

        self.id: str | None = run_id
        if tracker.mode == "online" and not wandb.login(prompt=False, verify=False):  # would ask, and block
            raise RunFault(
                "tracker.mode=online, but this machine is not logged in to W&B; run `wandb login` or set "
                "WANDB_API_KEY, or use tracker.mode=offline and upload later with `wandb sync`"
            )
        try:
            self._run = wandb.init(
                project=tracker.project,
                dir=tracker.dir,
                id=run_id,
                resume="allow",
                group=group,
                name=name,
                tags=tags,
                config=config,
                reinit="create_new",  # never joined to a run that is still open in this process
                settings=_wandb_settings(tracker.mode),
            )
        except wandb.errors.Error as error:
            raise RunFault(
                f"tracker=wandb with tracker.mode={tracker.mode} cannot start a run ({error}); "
                "use tracker.mode=offline or tracker=none"
            ) from error

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def summary(self, values: dict[str, float]) -> None:
        self._run.summary.update(values)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)})

    def finish(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


def _wandb_settings(mode: Any) -> Any:
    """Silent, and without code, host and command line: the record has them, or they should stay private."""
    import wandb

    return wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        host="",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
