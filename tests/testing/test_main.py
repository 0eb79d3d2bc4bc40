"""python -m harness.testing: what it finds, prints and returns."""

import pytest

from harness.testing import __main__ as testing
from tests.support.own_code import importable, write

CODE = """
from harness.scoring.custom import metric
from own_other import imported
@metric(direction="maximize", unit="percent")
def hits(predictions, references): return 100.0 * sum(one in other for one, other in zip(predictions, references))
@metric(direction="maximize")
def nan(predictions, references): return float("nan")
def undeclared(predictions, references): return 1.0
"""
OTHER = "from harness.scoring.custom import metric\n@metric()\ndef imported(predictions, references): return 1.0\n"


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, own_q__metrics=CODE, own_q__empty="", own_other=OTHER, own_bare="")
    (tmp_path / "own_q" / "__init__.py").write_text("")
    with importable(tmp_path):
        yield


def test_each_check_of_a_declared_metric_is_a_line(capsys):
    assert testing.main(["own_q"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok     own_q.metrics:hits  determinism: bit for bit" in lines
    assert any(
        line.startswith("BROKEN own_q.metrics:nan  finite numbers: scoring.metrics=own_q.metrics:nan") for line in lines
    )
    assert not any("undeclared" in line or "imported" in line for line in lines)
    assert lines[-1] == "5 of 10 checks hold"


def test_what_is_named_is_checked(capsys):
    assert testing.main(["own_q.metrics:hits"]) == 0
    assert capsys.readouterr().out.endswith("5 of 5 checks hold\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_missing", "own_missing cannot be imported"),
        ("own_bare", "own_bare offers no method (entry points of peft_harness.methods) and declares no metric"),
    ],
)
def test_nothing_to_check_is_an_error(capsys, name, message):
    assert testing.main([name]) == 2
    assert message in capsys.readouterr().err


def test_a_metric_that_cannot_be_used_is_broken(capsys):
    assert testing.main(["own_q.metrics:missing"]) == 1
    assert "BROKEN own_q.metrics:missing  definition: scoring.metrics=own_q.metrics:missing" in capsys.readouterr().out
