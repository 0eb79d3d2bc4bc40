"""Trackio: a project's runs in one SQLite file of ``tracker.dir``; its dashboard reads them on this machine.

Trackio has neither states nor a summary nor tags: those are logged as points of the last step, and in the config.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker
from harness.errors import RunFault
from harness.trackers.start import Start


class TrackioRun:
    """A run of Trackio; a continued run keeps its id, and its points follow."""

    url: str | None = None

    def __init__(self, tracker: Tracker, start: Start) -> None:
        trackio = import_trackio(Path(tracker.dir))
        self.id: str | None = start.run_id
        self._trackio, self._project, self._step = trackio, project_name(tracker.project), 0
        about = {"tags": start.tags, "notes": tracker.notes, "job_type": tracker.job_type}
        with _silently():
            # Not trackio.init: it ends the run before, prints, and looks for a notebook.
            self._run = _local_run(trackio)(
                url=None,
                project=self._project,
                client=None,
                name=_names_by_id(trackio, self._project).get(start.run_id, start.name),
                run_id=start.run_id,
                group=start.group,
                config={**start.config, **about},
                auto_log_gpu=tracker.system_metrics,
                auto_log_cpu=tracker.system_metrics,
            )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._step = max(self._step, step)
        with _silently():
            self._run.log(dict(values), step=step)

    def summary(self, values: Mapping[str, float | str]) -> None:
        self.log(self._step, {f"summary/{key}": value for key, value in values.items()})  # type: ignore[misc]

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        import pandas

        table = self._trackio.Table(dataframe=pandas.DataFrame(rows, columns=columns))
        self.log(self._step, {name: table})

    def artifact(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        artifact = self._trackio.Artifact(name, type="adapter", metadata=dict(about))
        artifact.add_dir(str(folder))
        with _silently():
            self._run.log_artifact(artifact)

    def record(self, file: Path) -> None:
        """Nothing: the database holds no files besides media and artifacts."""

    def finish(self, ok: bool) -> None:
        self.log(self._step, {"summary/state": "finished" if ok else "failed"})  # type: ignore[dict-item]
        with _silently():
            self._run.finish()


def import_trackio(folder: Path) -> Any:
    """The library, with its files in this folder; it reads the folder's name once, when it is imported.

    Raises:
        RunFault: it is not installed, or already uses another folder.
    """
    before = os.environ.get("TRACKIO_DIR")
    os.environ["TRACKIO_DIR"] = str(folder.absolute())
    try:
        with _silently():
            import trackio
            from trackio import utils
    except ImportError as error:
        raise RunFault(
            f"tracker=trackio needs a package that is not installed ({error}); "
            "pip install 'peft-harness[trackio]', or use tracker=wandb or tensorboard"
        ) from error
    finally:
        if before is None:
            del os.environ["TRACKIO_DIR"]
        else:
            os.environ["TRACKIO_DIR"] = before
    if Path(utils.TRACKIO_DIR) != folder.absolute():
        raise RunFault(
            f"tracker.dir={folder}: this process already writes Trackio's files to {utils.TRACKIO_DIR}; "
            "use one tracker.dir for all runs of a process"
        )
    return trackio


def project_name(project: str) -> str:
    """The project as a file's name."""
    return re.sub(r"[^\w.-]+", "-", project).strip("-.") or "peft-harness"


def _local_run(trackio: Any) -> Any:
    """Trackio's run, which does not ask the hub who is logged in."""

    class LocalRun(trackio.Run):
        def _get_username(self) -> None:
            return None

    return LocalRun


def _names_by_id(trackio: Any, project: str) -> dict[str, str]:
    try:
        return {str(run.id): run.name for run in trackio.Api().runs(project)}
    except ValueError:  # there is no such project yet
        return {}


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """What Trackio prints is not for a sweep's console."""
    assert sys.stdout is not None
    with contextlib.redirect_stdout(io.StringIO()):
        yield
