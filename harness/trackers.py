"""Experiment trackers: W&B, TensorBoard or none; one tracked run per plan, closed with its true state.

A tracker shows what the record holds; nothing is read back from it. W&B is offline unless asked otherwise, so
that nothing needs a login; ``wandb sync DIR`` uploads later. Neither library is imported unless it is used.
"""

import html
import json
import secrets
from pathlib import Path
from typing import Any, Protocol

from harness import parallel
from harness.errors import RunFault
from harness.schema import Tracker, Tracking


class Run(Protocol):
    """One tracked run."""

    id: str | None  # goes into the record; given back to ``start``, the run is continued

    def log(self, step: int, values: dict[str, float]) -> None:
        """Points of curves; steps never go back."""

    def summary(self, values: dict[str, float]) -> None:
        """Final figures."""

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Rows of text and numbers, such as predictions."""

    def finish(self, ok: bool) -> None:
        """Close the run as finished or failed."""


def start(
    tracker: Tracker,
    *,
    fingerprint: str,
    config: dict[str, Any],
    group: str,
    name: str,
    tags: list[str],
    run_id: str | None,
) -> Run:
    """Open a run; ``run_id`` of an earlier one continues that. Raises ``RunFault``."""
    if tracker.name is Tracking.none or not parallel.leads():
        return NoRun()
    # The fingerprint alone would join a repetition of the plan to the run that it repeats.
    run_id = run_id or f"{fingerprint[:12]}-{secrets.token_hex(3)}"
    try:
        Path(tracker.dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFault(
            f"tracker.dir={tracker.dir} cannot be made ({error.strerror}); give a writable folder, or tracker=none"
        ) from error
    config = {**config, "fingerprint": fingerprint}
    if tracker.name is Tracking.wandb:
        return WandbRun(tracker, config, group, name, tags, run_id)
    return TensorBoardRun(Path(tracker.dir) / run_id, config, group, name, tags, run_id)


class NoRun:
    """Tracks nothing; the record is written all the same."""

    id: str | None = None

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def summary(self, values: dict[str, float]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def finish(self, ok: bool) -> None: ...


class WandbRun:
    """A run of Weights & Biases.

    A run that is continued offline becomes a second folder with the same id; ``wandb sync`` joins the two.
    """

    def __init__(
        self, tracker: Tracker, config: dict[str, Any], group: str, name: str, tags: list[str], run_id: str
    ) -> None:
        import wandb

        self.id: str | None = run_id
        if tracker.mode == "online" and not wandb.login(prompt=False, verify=False):  # else it would ask, and block
            raise RunFault(
                "tracker.mode=online, but this machine is not logged in to W&B; run `wandb login` or set "
                "WANDB_API_KEY, or take tracker.mode=offline and upload later with `wandb sync`"
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
                reinit="create_new",  # of its own: never joined to a run that another part left open
                settings=_wandb_settings(tracker.mode),
            )
        except wandb.errors.Error as error:
            raise RunFault(
                f"tracker=wandb with tracker.mode={tracker.mode} cannot start a run ({error}); "
                "take tracker.mode=offline or tracker=none"
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
    """Silent, and without what the record keeps already or should not be told: code, host, command line."""
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


class TensorBoardRun:
    """Event files in a folder of the run's own; a continued run adds a file there."""

    def __init__(
        self, folder: Path, config: dict[str, Any], group: str, name: str, tags: list[str], run_id: str
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id: str | None = run_id
        self._writer = SummaryWriter(str(folder))
        self._step = 0
        about = {"group": group, "name": name, "tags": tags, "config": config}
        self._writer.add_text("about", _code(json.dumps(about, indent=1, ensure_ascii=False, default=str)))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._step = step
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def summary(self, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(f"summary/{key}", value, self._step)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join("|" + "|".join(map(_cell, line)) + "|" for line in lines)
        self._writer.add_text(name, text, self._step)

    def finish(self, ok: bool) -> None:
        self._writer.add_text("state", "finished" if ok else "failed", self._step)
        self._writer.close()


def _cell(value: Any) -> str:
    """One cell of a Markdown table; model output stays text."""
    return html.escape(str(value)).replace("|", "\\|").replace("\n", "<br>")


def _code(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
