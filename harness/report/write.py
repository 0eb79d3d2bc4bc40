"""Write a report: one file for each form."""

from collections.abc import Callable
from pathlib import Path

from harness.errors import RunFault, hint_for
from harness.record.files import atomic_write_text
from harness.report.formats import csv_file, html, json_file, latex, markdown
from harness.report.model import Report

PAGE_NAME = "report.html"

FORMS: dict[str, Callable[[Report], str]] = {
    "runs.csv": csv_file.to_csv,
    "report.json": json_file.to_json,
    "report.md": markdown.to_markdown,
    "report.tex": latex.to_latex,
    PAGE_NAME: html.to_html,
}


def write_report(report: Report, folder: Path) -> None:
    """Write all files of the report into ``folder``, each atomically.

    Raises:
        RunFault: a file cannot be written.
    """
    for name, form in FORMS.items():
        text = form(report)
        try:
            atomic_write_text(folder / name, text)
        except OSError as error:
            raise RunFault(
                f"report.dir={folder}: {name} cannot be written ({error}); {hint_for(error) or 'name another folder'}"
            ) from error
