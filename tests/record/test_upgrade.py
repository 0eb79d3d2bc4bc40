"""Records of older versions are read in the newest shape, and their files stay as they are."""

import shutil
from pathlib import Path

import pytest

from harness.record import store
from harness.record.upgrade import SCHEMA_VERSION, upgrade

SAMPLES = Path(__file__).parent / "version_1"
[FINGERPRINT] = [path.name for path in SAMPLES.iterdir()]


@pytest.fixture
def runs_dir(tmp_path):
    shutil.copytree(SAMPLES, tmp_path / "runs")
    return tmp_path / "runs"


def test_a_record_of_version_1_is_read_in_the_newest_shape(runs_dir):
    file = store.record_path(runs_dir, FINGERPRINT)
    before = file.read_bytes()
    assert b'"schema_version": 1' in before
    record = store.read_record(runs_dir, FINGERPRINT)
    assert record["schema_version"] == SCHEMA_VERSION == 2
    assert record["times_s"].keys() == {"load", "tokenize", "score_before", "train", "score_after"}
    assert store.schema_faults(record) == []
    assert store.all_records(runs_dir) == [record]
    assert file.read_bytes() == before


def test_the_checksum_of_an_older_record_is_of_the_file_as_written(runs_dir, caplog):
    file = store.record_path(runs_dir, FINGERPRINT)
    file.write_bytes(file.read_bytes().replace(b'"attempt": 1', b'"attempt": 7'))
    assert store.read_record(runs_dir, FINGERPRINT) is None
    assert "checksum mismatch" in caplog.text


@pytest.mark.parametrize("version", [0, None, "1"])
def test_an_unknown_version_is_an_error(version):
    with pytest.raises(KeyError):
        upgrade({"schema_version": version})
