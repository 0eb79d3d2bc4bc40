"""Weights & Biases."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker
from harness.errors import RunFault
from harness.record.redact import redactor

# Its limits, in characters. A longer text is an error there, and a tracker must not fail a run.
TAG, NAME = 64, 128


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
                project=fitting(re.sub(r"[/\\\\#?%:]", "-", tracker.project), NAME),
                dir=tracker.dir,
                id=run_id,
                resume="allow",
                group=fitting(group, NAME),
                name=fitting(name, NAME),
                tags=fitting_tags(tags),
                config=config,
                reinit="create_new",  # never joined to a run that is still open in this process
                settings=_wandb_settings(tracker.mode),
            )
        except (wandb.errors.Error, ValueError) as error:
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
        folder = Path(self._run.dir).parent
        self._run.finish(exit_code=0 if ok else 1)
        _redact_logs(folder)


def fitting(text: str, limit: int) -> str:
    """The text in at most ``limit`` characters: without its middle, in whose place a digest keeps it apart."""
    if len(text) <= limit:
        return text
    mark = f"…{hashlib.sha256(text.encode(errors='backslashreplace')).hexdigest()[:8]}…"
    rest = limit - len(mark)
    return text[: rest - rest // 2] + mark + text[len(text) - rest // 2 :]


def fitting_tags(tags: Sequence[str]) -> list[str]:
    """The tags without empty and repeated ones, none too long."""
    return list(dict.fromkeys(fitting(tag.strip(), TAG) for tag in tags if tag.strip()))


def _redact_logs(folder: Path) -> None:
    """Redact what W&B itself writes beside the run: its log of settings, which names folders and the environment."""
    redact = redactor()
    for file in [*folder.glob("logs/*.log"), *folder.glob("files/*.json"), *folder.glob("files/*.yaml")]:
        with suppress(OSError, UnicodeDecodeError):
            text = file.read_text(encoding="utf-8")
            if redact(text) != text:
                file.write_text(redact(text), encoding="utf-8")


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
