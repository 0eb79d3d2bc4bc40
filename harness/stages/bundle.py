"""stage=bundle: one archive of a run, a sweep or a claim, with all that others need to repeat it."""

import json
import logging
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.schema import ReportSettings
from harness.errors import ConfigFault
from harness.frozen import freeze
from harness.plan.spec import Options
from harness.record import store
from harness.record.bundle import LOCK, lock_lines, write_bundle
from harness.record.redact import redactor
from harness.record.run_record import Code, now
from harness.report.build import build_report
from harness.report.choose import FoundRun
from harness.report.texts import short_path
from harness.report.write import write_report
from harness.runtime.terminal import counted
from harness.stages.chosen import Chosen, chosen_runs
from harness.stages.report import request_for

log = logging.getLogger(__name__)

CLAIMS = "claims"  # folder of claims in the folder of runs
CLAIM = "claim.json"


def bundle_runs(options: Options) -> None:
    """Write the archive of the runs that ``report.*`` or ``bundle.claim`` chooses.

    Raises:
        ConfigFault: no finished run is chosen, or the claim does not exist.
        RunFault: the archive cannot be written.
    """
    claim = _claim_folder(options)
    if claim is not None:
        options = replace(options, report=_with_runs(options.report, _runs_of_claim(claim, options.runs_dir)))
    chosen = chosen_runs(options)
    finished = [run for run in chosen.runs if run.record["status"] == "finished"]
    if not finished:
        raise ConfigFault(f"none of {chosen.words} is finished; run them first")
    for run in chosen.runs:
        if run not in finished:
            log.warning("left out: %s is %s", run.fingerprint, run.record["status"])
    chosen = replace(chosen, runs=finished)
    name = _name(chosen, claim)
    named = options.bundle.path
    target = Path(named).expanduser().absolute() if named else chosen.folders[0] / "bundles" / f"{name}.tar.gz"
    with tempfile.TemporaryDirectory() as scratch:
        files = dict(_files(options, chosen, claim, Path(scratch)))
        write_bundle(target, files, _manifest(chosen, name, claim))
    size = target.stat().st_size / 2**20
    log.info("%s: %s, %.1f MiB", short_path(target), counted(len(finished), "run"), size)
    log.info("to repeat it: python -m harness stage=verify bundle.path=%s", shlex.quote(short_path(target)))


def _files(options: Options, chosen: Chosen, claim: Path | None, scratch: Path) -> Iterator[tuple[str, Path | bytes]]:
    """Members by name."""
    yield LOCK, ("\n".join(lock_lines()) + "\n").encode()
    for run in chosen.runs:
        yield f"configs/{run.fingerprint}.yaml", _as_yaml(run.record["plan"])
        yield from _files_of_run(run, options.bundle.adapters)
    for kind, folder in (("sweeps", chosen.sweep and chosen.sweep.folder), (CLAIMS, claim)):
        if folder:
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
                    yield f"{kind}/{folder.name}/{file.relative_to(folder).as_posix()}", file
    write_report(build_report(chosen.runs, request_for(options, chosen)), scratch)
    for file in sorted(scratch.iterdir()):
        yield f"report/{file.name}", file


def _files_of_run(run: FoundRun, adapters: bool) -> Iterator[tuple[str, Path]]:
    inside = f"runs/{run.fingerprint}"
    yield f"{inside}/{store.RECORD_NAME}", run.folder / store.RECORD_NAME
    predictions = run.record.get("predictions")
    if predictions and (run.folder / predictions).is_file():
        yield f"{inside}/{predictions}", run.folder / predictions
    folder = run.folder / store.ADAPTER
    if adapters and run.record.get("adapter") and folder.is_dir():
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                yield f"{inside}/{store.ADAPTER}/{file.relative_to(folder).as_posix()}", file


def _as_yaml(plan: Mapping[str, Any]) -> bytes:
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(plan)), sort_keys=False, allow_unicode=True).encode()


def _manifest(chosen: Chosen, name: str, claim: Path | None) -> dict[str, Any]:
    code = Code.here()
    arguments = list(map(redactor(), sys.argv[1:]))
    return {
        "name": name,
        "created": now(),
        "command": shlex.join(["python", "-m", "harness", *arguments]),
        "commands": list(chosen.sweep.commands) if chosen.sweep else [],
        "chosen": chosen.words,
        "claim": claim.name if claim else None,
        "code": {"version": code.version, "git_commit": code.git_commit, "git_dirty": code.git_dirty},
        "runs": {
            run.fingerprint: {
                "method": run.record["method"],
                "code": run.record["code"],
                "data": run.record["plan"].get("inputs", {}),
                "train_s": run.record["times_s"].get("train"),
            }
            for run in chosen.runs
        },
    }


def _name(chosen: Chosen, claim: Path | None) -> str:
    """A file name: that of the claim or the sweep, else of the first run."""
    wanted = claim.name if claim else chosen.sweep.name if chosen.sweep else chosen.runs[0].fingerprint
    return re.sub(r"[^\w.-]+", "_", wanted).strip("._")[:80] or chosen.runs[0].fingerprint


def _with_runs(settings: ReportSettings, fingerprints: list[str]) -> ReportSettings:
    made: ReportSettings = freeze(replace(settings, runs=fingerprints))
    return made


def _claim_folder(options: Options) -> Path | None:
    name = options.bundle.claim
    if name is None:
        return None
    folder = options.runs_dir / CLAIMS / name
    if not (folder / CLAIM).is_file():
        known = sorted(file.parent.name for file in (options.runs_dir / CLAIMS).glob(f"*/{CLAIM}"))
        raise ConfigFault(
            f"bundle.claim={name} is not a claim in {short_path(options.runs_dir)}; it has {', '.join(known) or 'none'}"
        )
    return folder


def _runs_of_claim(folder: Path, runs_dir: Path) -> list[str]:
    """Fingerprints that the claim's file names, whatever its shape is, and that have a record."""
    try:
        content = json.loads((folder / CLAIM).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigFault(f"bundle.claim={folder.name}: {CLAIM} cannot be read ({error}); judge it again") from error
    found = [text for text in dict.fromkeys(_texts(content)) if re.fullmatch(r"[0-9a-f]{8,64}", text)]
    found = [text for text in found if store.record_path(runs_dir, text).is_file()]
    if not found:
        raise ConfigFault(f"bundle.claim={folder.name} names no run that is in {short_path(runs_dir)}; judge it again")
    return found


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, str):
        yield node
