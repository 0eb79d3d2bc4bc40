"""Digests of large files are computed once, and again after any change."""

import os

import pytest

from harness.models import digests

pytestmark = pytest.mark.usefixtures("own_cache")
OLD = 1_600_000_000_000_000_000  # ns: long enough ago to be kept


@pytest.fixture
def reads(monkeypatch):
    """How often a file was read; each question is that of a new process, at a time when files have settled."""
    counted: list[str] = []
    original = digests.file_sha256
    monkeypatch.setattr(digests, "file_sha256", lambda path: counted.append(path.name) or original(path))
    monkeypatch.setattr(digests, "SETTLED_NS", -1)
    return counted


def asked(path):
    digests._digest.cache_clear()
    return digests.file_digest(path)


def test_a_large_file_is_read_once(tmp_path, reads):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"1" * (digests.KEPT_ABOVE + 1))
    assert asked(path) == asked(path)
    assert len(reads) == 1


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path, reads):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"1" * (digests.KEPT_ABOVE + 1))
    os.utime(path, ns=(OLD, OLD))
    before = asked(path)
    with path.open("r+b") as file:
        file.seek(5)
        file.write(b"2")
    os.utime(path, ns=(OLD, OLD))
    assert asked(path) != before
    assert len(reads) == 2


def test_what_was_written_a_moment_ago_is_not_kept(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_NS", 10**12)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"1" * (digests.KEPT_ABOVE + 1))
    assert asked(path) == asked(path)
    assert len(reads) == 2


def test_a_damaged_or_absent_cache_costs_time_only(tmp_path, reads, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"1" * (digests.KEPT_ABOVE + 1))
    before = asked(path)
    for kept in (tmp_path / "cache" / "digests").iterdir():
        kept.write_text("[")
    assert asked(path) == before
    (tmp_path / "file").touch()
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "file" / "below"))
    assert asked(path) == before


def test_weights_are_known_once_they_were_loaded():
    assert digests.known_weights("base") is None
    digests.remember_weights("base", "abc")
    assert digests.known_weights("base") == "abc"
