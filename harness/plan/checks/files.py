"""Faults of paths: those that cannot exist, and a folder for records that cannot be written."""

from collections.abc import Iterator
from typing import Any

from harness.config.schema import Config, Tracking
from harness.plan.values import is_text, path_faults, unwritable_folder


def file_faults(config: Config) -> Iterator[str]:
    """Paths that cannot exist, and a folder for records that cannot be written."""
    paths: dict[str, Any] = {
        "runs_dir": config.runs_dir,
        "adapter_path": config.adapter_path,
        "data.path": config.data.path,
        "model.path": config.model.path,
        "model.config_only": config.model.config_only,
        "scoring.forgetting": config.scoring.forgetting,
        "scoring.judge.model": config.scoring.judge.model,
        "scoring.lm_eval.include_path": config.scoring.lm_eval.include_path,
        "export.dir": config.export.dir,
        "export.converter": config.export.converter,
        "report.dir": config.report.dir,
        "report.runs_dirs": config.report.runs_dirs,
        "archive.dir": config.archive.dir,
        "import_results.path": config.import_results.path,
        "bundle.path": config.bundle.path,
        "bundle.dir": config.bundle.dir,
        "bundle.files": config.bundle.files,
    }
    paths |= {f"data.splits.{name}": split for name, split in vars(config.data.splits).items()}
    if config.tracker.name is not Tracking.none:
        paths["tracker.dir"] = config.tracker.dir
    impossible = [fault for key, given in paths.items() for path in _named(given) for fault in path_faults(key, path)]
    yield from impossible
    if not config.runs_dir:
        yield "runs_dir is empty; name the folder for records, e.g. runs_dir=runs"
    elif not impossible and is_text(config.runs_dir):
        yield from unwritable_folder(config.runs_dir, config.stage)


def _named(given: Any) -> list[str]:
    """The paths of a setting that takes one, or a list of them."""
    return [path for path in (given if isinstance(given, list) else [given]) if isinstance(path, str) and path]
