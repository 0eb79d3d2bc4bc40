"""stage=verify: repeat the runs of an archive, and say which of their figures come out again."""

import json
import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Keep
from harness.errors import ConfigFault, RunFault, first_line
from harness.plan.from_record import plan_of_record, require_same_rows
from harness.plan.spec import Options
from harness.record import store
from harness.record.bundle import LOCK, changed_versions, unpack_bundle
from harness.record.files import atomic_write_text, file_sha256
from harness.record.provenance import code_version
from harness.record.readings import validation_loss
from harness.record.run_record import now
from harness.report.texts import short_path
from harness.runtime.terminal import counted, first_of, printable
from harness.sweep.cells import Cell
from harness.sweep.claim import run_cell

if TYPE_CHECKING:
    from harness.pipeline.cache import ProcessCache

log = logging.getLogger(__name__)

RESULT = "verify.json"
LISTED = 3  # differing versions or figures that a line names

PATHS = (
    ("data", "path"),
    ("model", "path"),
    ("scoring", "forgetting"),
    ("trainer", "teacher"),
    ("trainer", "continue_from"),
)


@dataclass(frozen=True)
class Figure:
    """One figure of a run, as it was and as it came out."""

    name: str
    there: Any
    here: Any
    agrees: bool


@dataclass(frozen=True)
class Verdict:
    """What came of repeating one run."""

    run: str
    method: str
    state: str  # agrees, differs, cannot be repeated, not repeated
    why: str = ""
    figures: tuple[Figure, ...] = ()

    @property
    def differing(self) -> list[Figure]:
        """The figures that did not come out again."""
        return [figure for figure in self.figures if not figure.agrees]


def verify_bundle(options: Options, cache: "ProcessCache") -> None:
    """Repeat the runs of ``bundle.path`` in ``bundle.dir``, the shortest first, and compare.

    A second command takes runs that are repeated already from that folder.

    Raises:
        ConfigFault: the archive does not exist.
        DataFault: it is damaged.
        RunFault: some run differs or cannot be repeated; the table has shown which.
    """
    file = Path(str(options.bundle.path)).expanduser().absolute()
    if not file.is_file():
        raise ConfigFault(f"bundle.path={file} is not a file; name the archive that stage=bundle wrote")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = unpack_bundle(file, folder)
        target = _target(options, str(manifest["name"]))
        versions = changed_versions((folder / LOCK).read_text(encoding="utf-8").splitlines())
        _announce(manifest, versions)
        records = _records(folder, manifest)
        wanted = records[: options.bundle.runs]
        verdicts = [_repeat(record, options, target, cache) for record in wanted]
        verdicts += [
            Verdict(record["fingerprint"], record["method"], "not repeated") for record in records[len(wanted) :]
        ]
    _show(verdicts)
    content = {
        "bundle": file.name,
        "sha256": file_sha256(file),
        "made": now(),
        "code": {"there": manifest["code"]["version"], "here": code_version()},
        "versions": versions,
        "tolerance": options.bundle.tolerance,
        "runs": [asdict(verdict) for verdict in verdicts],
    }
    atomic_write_text(target / RESULT, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    log.info("%s", short_path(target / RESULT))
    failed = [verdict for verdict in verdicts if verdict.state in ("differs", "cannot be repeated")]
    if failed:
        raise RunFault(
            f"{len(failed)} of {counted(len(wanted), 'run')} did not reproduce the results in {file.name}: "
            f"{', '.join(verdict.run for verdict in failed)}"
        )


def _target(options: Options, name: str) -> Path:
    named = options.bundle.dir
    return Path(named).expanduser().absolute() if named else options.runs_dir / "verified" / name.replace("/", "_")


def _announce(manifest: Mapping[str, Any], versions: Sequence[str]) -> None:
    """Say before the first run in what this place differs from the one of the archive."""
    there, here = manifest["code"]["version"], code_version()
    if there != here:
        commit = manifest["code"].get("git_commit")
        at = f", commit {commit}" if commit else ""
        log.warning("made by code %s%s, repeated by %s: figures may differ for that reason", there, at, here)
    if versions:
        log.warning("other packages: %s", first_of(versions, LISTED, "; "))


def _records(folder: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Records of one's own runs, the shortest first; imported results have nothing to repeat."""
    found = [store.read_copy(folder / "runs" / name / store.RECORD_NAME) for name in manifest["runs"]]
    own = [record for record in found if not record.get("foreign")]
    return sorted(own, key=lambda record: (record["times_s"].get("train") or 0.0, record["fingerprint"]))


def _repeat(record: dict[str, Any], options: Options, target: Path, cache: "ProcessCache") -> Verdict:
    from harness.pipeline.run import run

    name, method = record["fingerprint"], record["method"]
    try:
        plan = plan_of_record(_relocated(record, options.bundle.files))
        require_same_rows(plan)
        cell = Cell((), plan, _options(options, record, target)).with_attempts()
        again = run_cell(cell, partial(run, cache=cache), wait=True)
    except Exception as error:  # of any kind: the other runs are repeated all the same
        return Verdict(name, method, "cannot be repeated", printable(first_line(error), one_line=True))
    figures = tuple(_figures(record, again, options.bundle.tolerance))
    return Verdict(name, method, "agrees" if all(each.agrees for each in figures) else "differs", figures=figures)


def _options(options: Options, record: Mapping[str, Any], target: Path) -> Options:
    """Those of the command, in the folder for repeated runs, with the threads of the record unless others are given."""
    from harness.runtime.threads import usable_cores

    threads = record.get("device", {}).get("threads")
    usual = min(int(threads), max(1, math.floor(usable_cores()))) if isinstance(threads, int) else None
    return replace(
        options,
        runs_dir=target,
        keep=Keep.adapter,
        rerun=False,
        threads=options.threads or usual,
        sweep_name=None,
        rate_rule=None,
        note=f"repeats {record['fingerprint']} of {Path(str(options.bundle.path)).name}",
    )


def _relocated(record: dict[str, Any], files: str | None) -> dict[str, Any]:
    """The record with paths that are missing here replaced by files of the same name in ``bundle.files``."""
    if files is None:
        return record
    plan = {key: dict(value) if isinstance(value, Mapping) else value for key, value in record["plan"].items()}
    for part, key in PATHS:
        path = plan.get(part, {}).get(key)
        moved = Path(files).expanduser() / Path(str(path)).name
        if isinstance(path, str) and not Path(path).expanduser().exists() and moved.exists():
            plan[part][key] = str(moved)
    return {**record, "plan": plan}


def _figures(there: Mapping[str, Any], here: Mapping[str, Any], tolerance: float) -> Iterator[Figure]:
    """Scores, counts, what was trained on, and the adapter's bytes; times and memory are the machine's."""
    for name, one in _compared(there).items():
        other = _compared(here).get(name)
        yield Figure(name, one, other, agree(one, other, tolerance))


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    scores, training = record["scores"], record.get("training", {})
    found = {f"{when}.{name}": value for when in ("before", "after") for name, value in scores.get(when, {}).items()}
    found |= {"validation_loss": validation_loss(record), "optimizer_steps": training.get("optimizer_steps")}
    found |= {f"parameters.{name}": record.get("parameters", {}).get(name) for name in ("trainable", "total", "stored")}
    found |= {f"rows.{name}": value for name, value in record.get("rows", {}).items()}
    found["supervised_tokens"] = record.get("audit", {}).get("supervised_sha256")
    return {name: value for name, value in found.items() if value is not None}


def agree(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two figures are equal: numbers up to the relative tolerance, everything else exactly."""
    if isinstance(one, bool) or not isinstance(one, int | float) or not isinstance(other, int | float):
        return bool(one == other)
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-9)


def _show(verdicts: Sequence[Verdict]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from harness.report.plain_table import plain_table

    done = [verdict for verdict in verdicts if verdict.state != "not repeated"]
    agreeing = sum(verdict.state == "agrees" for verdict in done)
    table = plain_table(f"{agreeing} of {counted(len(done), 'repeated run')} agree")
    for column in ("run", "method", "verdict", "figures that agree", "which do not"):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        equal = len(verdict.figures) - len(verdict.differing)
        count = f"{equal} of {len(verdict.figures)}" if verdict.figures else ""
        table.add_row(verdict.run, escape(verdict.method), verdict.state, count, escape(_which(verdict)))
    Console(file=sys.stdout).print(table)


def _which(verdict: Verdict) -> str:
    shown = [f"{each.name} {_short(each.there)} there, {_short(each.here)} here" for each in verdict.differing[:LISTED]]
    rest = len(verdict.differing) - len(shown)
    return verdict.why or "; ".join([*shown, *([f"{rest} more"] if rest else [])])


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:12]
