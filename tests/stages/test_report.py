"""stage=report: the chosen runs as tables on the console and as files, and what a choice of nothing is told."""

import csv
import json
import os
import shlex
import subprocess
import sys

import pytest

from harness.config.free_text import quote_free_text
from tests.support.paths import ROOT
from tests.support.reports import rewrite, three_methods, write_run
from tests.support.runs import command

FILES = ["report.html", "report.json", "report.md", "report.tex", "runs.csv"]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    three_methods(folder, seeds=2)
    return folder


def rows_of(folder):
    with (folder / "runs.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_files_are_written_and_the_tables_printed(runs_dir):
    done = command("stage=report", f"runs_dir={runs_dir}")
    assert done.code == 0, done.err
    assert sorted(file.name for file in (runs_dir / "report").iterdir()) == FILES
    assert "tiny on medicine, test split" in done.out
    assert "r=8" in done.out
    assert "Highest exact_match" in done.out
    assert "report.html" in done.err
    assert len(rows_of(runs_dir / "report")) == 10


def test_conditions_fingerprints_and_folders_are_read_as_typed(runs_dir, tmp_path):
    kept = json.loads((runs_dir / "report" / "report.json").read_text()) if (runs_dir / "report").exists() else None
    one = next(path.parent.name for path in runs_dir.glob("*/record.json"))
    words = ["stage=report", f"report.runs_dirs=[{runs_dir}]", f"report.dir={tmp_path / 'a, b = (c) 数据'}"]
    done = command(*words, "report.where=method in [lora, ia3] and model.name == tiny and seed < 1")
    assert done.code == 0, done.err
    assert len(rows_of(tmp_path / "a, b = (c) 数据")) == 3
    assert command(*words, f"report.runs=[{one[:6]}]").code == 0
    assert [row["run"] for row in rows_of(tmp_path / "a, b = (c) 数据")] == [one]
    assert kept is None or kept["groups"]


def test_a_fingerprint_that_reads_as_a_number_stays_text():
    assert quote_free_text(["report.runs=[39e5,12]", "report.runs=39e5", "report.where=run == 39e5"]) == [
        'report.runs=["39e5","12"]',
        'report.runs="39e5"',
        'report.where="run == 39e5"',
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report.where=methd == lora"], "no record has a field methd; did you mean method?"),
        (["report.where=method == lorra"], "matches none of 10 runs; method is"),
        (["report.where=seed=1"], "has a single =; write == to compare"),
        (["report.runs=[zzzz]"], "report.runs=zzzz matches no run"),
        (["report.sweep=other"], "holds no sweep"),
        (["report.reference=lorra"], "report.reference=lorra names no run"),
        pytest.param(
            ["report.dir=/dev/null/x"],
            "report.dir=/dev/null/x cannot be created: /dev/null is not a folder",
            marks=pytest.mark.posix,
        ),
        pytest.param(["report.dir=/proc/x"], "report.dir=/proc/x: runs.csv cannot be written", marks=pytest.mark.posix),
        (["report.runs_dirs=[/nowhere/at/all]"], "report.runs_dirs=/nowhere/at/all is not a folder"),
        (["report.minimum_effect=-1"], "report.minimum_effect=-1.0 must be a finite number above 0"),
    ],
)
def test_a_wrong_choice_names_key_value_and_remedy(runs_dir, words, message):
    done = command("stage=report", f"runs_dir={runs_dir}", *words)
    assert done.code in (1, 2)
    assert message in done.err, done.err


def test_a_folder_without_records_is_named(tmp_path):
    done = command("stage=report", f"runs_dir={tmp_path}")
    assert done.code == 2
    assert "holds no record" in done.err


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write everywhere")
def test_runs_in_a_folder_that_may_only_be_read_need_another_folder(tmp_path):
    write_run(tmp_path / "runs")
    (tmp_path / "runs").chmod(0o555)
    try:
        done = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
        assert (done.code, "set report.dir=" in done.err) == (2, True)
        assert command("stage=report", f"runs_dir={tmp_path / 'runs'}", f"report.dir={tmp_path / 'out'}").code == 0
    finally:
        (tmp_path / "runs").chmod(0o755)


@pytest.mark.slow
def test_the_reference_may_be_a_method_a_setting_or_a_fingerprint(runs_dir, tmp_path):
    for text in ("ia3", "lora r=8", "full rate 0.01"):
        done = command("stage=report", f"runs_dir={runs_dir}", f"report.dir={tmp_path}", f"report.reference={text}")
        assert done.code == 0, done.err
        content = json.loads((tmp_path / "report.json").read_text())
        assert {each["reference_name"] for group in content["groups"] for each in group["comparisons"]} == {text}


def test_the_command_in_the_report_makes_it_again(runs_dir, tmp_path):
    words = ["stage=report", f"runs_dir={runs_dir}", f"report.dir={tmp_path}", "report.where=seed < 1"]
    assert command(*words).code == 0
    kept = shlex.split(json.loads((tmp_path / "report.json").read_text())["command"])
    assert kept[:3] == ["python", "-m", "harness"]
    before = (tmp_path / "runs.csv").read_text()
    assert command(*kept[3:]).code == 0
    assert (tmp_path / "runs.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.posix
def test_a_shell_passes_the_examples_of_the_documents(runs_dir, tmp_path):
    keep_sweep(runs_dir)
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/report.md")]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    examples = [
        line.partition("   #")[0] for line in lines if line.startswith("python -m harness stage=report report.")
    ]
    examples += [line for line in lines if line.startswith("python -m harness stage=report '")]
    assert len(examples) == 5
    for line in examples:
        shell = line.replace("[runs]", f"[{runs_dir}]").replace("python", sys.executable, 1)
        shell += f" runs_dir={runs_dir} report.dir={tmp_path}"
        done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)


def keep_sweep(runs_dir):
    """A sweep named mine, of one configuration of each method."""
    records = [json.loads(path.read_text()) for path in runs_dir.glob("*/record.json")]
    rewrite(runs_dir, records[0] | {"tags": ["paper"]})
    wanted = [each for each in records if each["plan"]["settings"].get("r", 4) == 4]
    wanted = [each for each in wanted if each["plan"]["learning_rate"] != 0.01 or each["method"] != "full"]
    cells = [{"fingerprint": each["fingerprint"], "name": each["method"], "method": each["method"]} for each in wanted]
    folder = runs_dir / "sweeps" / "abc"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"name": "mine", "cells": cells}))
