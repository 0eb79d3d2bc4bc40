"""Weights & Biases."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker
from harness.errors import RunFault
from harness.record.files import atomic_write_text
from harness.record.redact import redactor
from harness.trackers.start import EPOCH, STEP, TOKENS, Start

# Its limits, in characters. A longer text is an error there, and a tracker must not fail a run.
TAG, NAME = 64, 128

RECORD = "peft_harness_record.json"  # among the files of a run


class WandbRun:
    """A run of Weights & Biases.

    Continuing a run offline makes a second folder with the same id; ``wandb sync`` joins the two. If an agent of a
    W&B sweep started this process, the run is the one that the sweep waits for.
    """

    def __init__(self, tracker: Tracker, start: Start) -> None:
        import wandb

        agent = in_sweep_of_wandb()
        mode = "online" if agent else tracker.mode
        self.id: str | None = (os.environ.get("WANDB_RUN_ID") if agent else None) or start.run_id
        require_login(mode)
        try:
            self._run = wandb.init(
                # The agent has told W&B's client project and entity.
                project=None if agent else project_name(tracker.project),
                entity=None if agent else tracker.entity,
                dir=tracker.dir,
                id=self.id,
                resume="allow",
                group=fitting(start.group, NAME),
                job_type=tracker.job_type,
                name=fitting(start.name, NAME),
                notes=tracker.notes,
                tags=fitting_tags(start.tags),
                config=start.config,
                reinit="create_new",  # never joined to a run that is still open in this process
                settings=_wandb_settings(mode, tracker.system_metrics),
            )
        except (wandb.errors.Error, ValueError) as error:
            raise RunFault(
                f"tracker=wandb with tracker.mode={mode} cannot start a run ({error}); "
                "use tracker.mode=offline or tracker=none"
            ) from error
        self.url: str | None = self._run.url if mode == "online" else None
        for axis in (STEP, TOKENS, EPOCH):
            self._run.define_metric(axis, summary="none")
        self._run.define_metric("train/*", step_metric=STEP)
        # Its last point is not the result: the summary is that of the weights that were kept.
        self._run.define_metric("validation/loss", step_metric=STEP, summary="none")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def summary(self, values: Mapping[str, float | str]) -> None:
        self._run.summary.update(dict(values))

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)})

    def artifact(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        import wandb

        artifact = wandb.Artifact(fitting(name, NAME), type="adapter", metadata=dict(about))
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            artifact.add_file(str(file), name=file.relative_to(folder).as_posix())  # add_dir prints
        self._run.log_artifact(artifact)

    def record(self, file: Path) -> None:
        copy = Path(self._run.dir) / RECORD
        atomic_write_text(copy, file.read_text(encoding="utf-8"))
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def finish(self, ok: bool) -> None:
        folder = Path(self._run.dir).parent
        self._run.finish(exit_code=0 if ok else 1)
        _redact_logs(folder)


def in_sweep_of_wandb() -> bool:
    """Whether an agent of a W&B sweep started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def require_login(mode: str) -> None:
    """Raise RunFault if W&B would have to ask for a key, which would block."""
    import wandb

    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise RunFault(
            "tracker.mode=online, but this machine is not logged in to W&B; run `wandb login` or set "
            "WANDB_API_KEY, or use tracker.mode=offline and upload later with `wandb sync`"
        )


def project_name(project: str) -> str:
    """The project as W&B takes it."""
    return fitting(re.sub(r"[/\\\\#?%:]", "-", project), NAME)


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
        if file.name == RECORD:  # redacted when it was written, and under a checksum
            continue
        with suppress(OSError, UnicodeDecodeError):
            text = file.read_text(encoding="utf-8")
            if redact(text) != text:
                file.write_text(redact(text), encoding="utf-8")


def _wandb_settings(mode: Any, system_metrics: bool) -> Any:
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
        x_disable_machine_info=not system_metrics,  # without it W&B samples nothing
        x_disable_stats=not system_metrics,
        x_save_requirements=False,
    )
