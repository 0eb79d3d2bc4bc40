"""The runs that ``report.*`` chooses, for stages that work on many runs."""

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigFault
from harness.plan.spec import Options
from harness.report.choose import FoundRun, choose_runs, read_runs
from harness.report.texts import short_path
from harness.stages.sweep_view import find_sweep
from harness.sweep import manifest
from harness.sweep.sweep_report import SweepContent, read_sweep


@dataclass(frozen=True)
class Chosen:
    """Some runs, and in words which ones."""

    runs: list[FoundRun]
    folders: tuple[Path, ...]  # that were read
    sweep: SweepContent | None
    words: str  # "12 of 40 runs in runs, where seed < 3"


def chosen_runs(options: Options) -> Chosen:
    """The runs that ``report.runs_dirs``, ``report.sweep``, ``report.runs`` and ``report.where`` choose together.

    Raises:
        ConfigFault: a folder, sweep or fingerprint does not exist, the condition is wrong, or no run is left.
    """
    settings = options.report
    sweep_folder = _folder_of_sweep(settings.sweep)
    named = _texts(settings.runs_dirs)
    if named is not None:
        folders, key = tuple(Path(each).expanduser().absolute() for each in named), "report.runs_dirs"
    elif sweep_folder is not None:  # <runs_dir>/sweeps/<hash>
        folders, key = (sweep_folder.parent.parent,), "report.sweep"
    else:
        folders, key = (options.runs_dir,), "runs_dir"
    everything = read_runs(folders, key)
    runs = everything
    sweep = None
    if settings.sweep is not None:
        sweep = read_sweep(sweep_folder or _named_sweep(folders, settings.sweep))
        runs = [run for run in runs if run.fingerprint in sweep.cells]
        if not runs:
            raise ConfigFault(
                f"report.sweep={settings.sweep} has {len(sweep.cells)} plans, none of which has a record in "
                f"{_list(folders)}; run it first, or name its folders with report.runs_dirs"
            )
    runs = choose_runs(runs, _texts(settings.runs), settings.where)
    words = f"{len(runs)} of {len(everything)} runs in {_list(folders)}"
    if sweep is not None:
        words += f", of the sweep {sweep.name}"
    if settings.where is not None:
        words += f", where {settings.where}"
    return Chosen(runs, folders, sweep, words)


def _folder_of_sweep(text: str | None) -> Path | None:
    """The folder, if the setting names one instead of a sweep's name."""
    if text is None:
        return None
    folder = Path(text).expanduser().absolute()
    folder = folder.parent if folder.name == manifest.MANIFEST_NAME else folder
    return folder if (folder / manifest.MANIFEST_NAME).is_file() else None


def _named_sweep(folders: tuple[Path, ...], name: str) -> Path:
    """The sweep of that name in the first folder that has one."""
    faults = []
    for folder in folders:
        try:
            found = find_sweep(folder, name, "report.sweep")
        except ConfigFault as fault:
            faults.append(str(fault))
            continue
        if found is not None:
            return found
    raise ConfigFault("\n".join(faults))


def _texts(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value


def _list(folders: tuple[Path, ...]) -> str:
    return ", ".join(map(short_path, folders))
