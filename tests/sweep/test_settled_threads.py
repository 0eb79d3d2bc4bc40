"""A sweep has one number of threads, whoever resumes it."""

import json

import pytest

from harness.runtime import threads
from harness.runtime.threads import Threads
from harness.sweep.launchers import joblib
from harness.sweep.settled_threads import NAME, settle_threads


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv(threads.GIVEN, raising=False)
    threads.reset()
    yield
    threads.reset()


def test_the_first_command_chooses_and_the_others_keep_it(tmp_path):
    threads.keep(Threads(3, "three are free"))
    assert settle_threads(tmp_path).count == 3
    threads.reset()
    threads.keep(Threads(1, "busy now"))
    assert settle_threads(tmp_path) == Threads(3, "chosen when the sweep began: three are free")
    assert threads.total().count == 3
    assert joblib.worker_environment(0, 3, [])[threads.GIVEN] == "1"
    assert joblib.worker_environment(0, 1, [])[threads.GIVEN] == "3"


def test_a_given_number_counts_before_it_and_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(threads.GIVEN, "2")
    assert settle_threads(tmp_path) == Threads(2, "OMP_NUM_THREADS")
    assert not (tmp_path / NAME).exists()
    assert joblib.worker_environment(0, 4, [])[threads.GIVEN] == "2"


def test_fewer_cores_than_before_are_said_and_change_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / NAME).write_text(json.dumps({"count": 8, "why": "eight"}))
    monkeypatch.setattr(threads, "usable_cores", lambda: 2.0)
    with caplog.at_level("WARNING", logger="harness"):
        assert settle_threads(tmp_path).count == 8
    assert "began with 8 threads, but this process may use only 2 cores" in caplog.text


def test_a_damaged_file_is_written_again(tmp_path):
    (tmp_path / NAME).write_text("{")
    threads.keep(Threads(2, "two"))
    assert settle_threads(tmp_path).count == 2
    assert json.loads((tmp_path / NAME).read_text()) == {"count": 2, "why": "two", "busy": 0.0}
