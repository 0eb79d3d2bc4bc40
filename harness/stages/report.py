"""stage=report: compare what is on record, on the console and as a page, tables and data."""

import logging
import os
import shlex
import sys
from pathlib import Path

from harness.config.schema import Paper
from harness.errors import ConfigFault, raise_together
from harness.plan.spec import Options
from harness.record.redact import redactor
from harness.report.build import Request, build_report
from harness.report.overview import print_report
from harness.report.shape.arms import paper_faults
from harness.report.texts import short_path
from harness.report.write import FORMS, write_report
from harness.stages.chosen import Chosen, chosen_runs
from harness.stages.wandb_report import publish

log = logging.getLogger(__name__)


def report_records(options: Options) -> None:
    """Write the report of the chosen runs into ``report.dir``, and print its tables and findings.

    Raises:
        ConfigFault: no run is chosen, or the folder cannot be written.
    """
    chosen = chosen_runs(options)
    folder = _folder(options, chosen.folders[0])
    report = build_report(chosen.runs, request_for(options, chosen))
    write_report(report, folder)
    print_report(report)
    log.info("%s: %s", short_path(folder), ", ".join(reversed(FORMS)))
    if options.report.wandb:
        publish(report, chosen.runs, options.tracker, folder)


def request_for(options: Options, chosen: Chosen) -> Request:
    """How the report of these runs is made."""
    arguments = list(map(redactor(), sys.argv[1:]))  # now: the shell's quotes would hide a secret
    request = Request(
        title=f"Runs in {', '.join(map(short_path, chosen.folders))}",
        chosen=chosen.words,
        command=shlex.join(["python", "-m", "harness", *arguments]),
        reference=options.report.reference,
        minimum_effect=options.report.minimum_effect,
        sections=tuple(options.report.sections),
        paper=_paper(options),
    )
    if chosen.sweep is not None:
        # A condition leaves runs out on purpose.
        whole = options.report.where is None and options.report.runs is None
        found = frozenset(run.fingerprint for run in chosen.runs)
        request = chosen.sweep.added_to(request, found if whole else frozenset(chosen.sweep.cells))
    return request


def _paper(options: Options) -> Paper | None:
    """What ``experiment=`` expects of the runs; None leaves it to the sweep's own.

    Raises:
        ConfigFault: an arm or a rule is wrong.
    """
    if not options.paper.expect:
        return None
    raise_together(paper_faults(options.paper))
    return options.paper


def _folder(options: Options, runs_dir: Path) -> Path:
    """Where the files go; asked before anything is read or computed for them."""
    named = options.report.dir
    folder = Path(named).expanduser().absolute() if named else runs_dir / "report"
    place = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not place.is_dir():
        raise ConfigFault(f"report.dir={folder} cannot be created: {place} is not a folder; name another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigFault(f"report.dir={folder} cannot be written: no permission in {place}; set report.dir=<folder>")
    return folder
