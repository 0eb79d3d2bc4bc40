"""GGUF files that packages carry in parts: joined, checked, cached."""

from pathlib import Path

import pytest

from harness.errors import ModelFault
from harness.models import sources as model_sources
from tests.support.model_cases import sha, snapshot

pytestmark = pytest.mark.usefixtures("own_cache")


def nothing_left(tmp_path: Path) -> bool:
    return not [path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"]


def test_packages_are_joined_checked_cached_and_announced(two_parts, silent_hub, monkeypatch, caplog):
    located = model_sources.locate_weights(two_parts)
    assert (located.folder / "whole").read_bytes() == b"first second"
    assert located.origin == "package"
    assert "toy-part1==1.0, toy-part2==1.0, so not identical to the hub's" in located.note
    assert "the hub did not answer (ConnectionError: no route to host)" in located.note
    assert located.note in caplog.messages
    monkeypatch.setenv("PIP_FIND_LINKS", "")  # the second time needs no index
    assert model_sources.locate_weights(two_parts) == located


def test_package_model_prefers_the_hub(two_parts, tmp_path, silent_hub):
    snapshot(tmp_path / "hub")
    assert model_sources.locate_weights(two_parts).origin == "hub"


def test_wrong_part_names_package_expected_and_got(two_parts, silent_hub, tmp_path):
    two_parts.packages[1].sha256 = "0" * 64
    with pytest.raises(ModelFault, match=rf"toy-part2==1.0: expected sha256 {'0' * 64}, got {sha(b'second')}"):
        model_sources.locate_weights(two_parts)
    assert nothing_left(tmp_path)


def test_wrong_whole_is_refused(two_parts, silent_hub, tmp_path):
    two_parts.packages.reverse()
    with pytest.raises(ModelFault, match=rf"2 parts of toy: expected .*got {sha(b'secondfirst ')}"):
        model_sources.locate_weights(two_parts)
    assert nothing_left(tmp_path)


def test_absent_package_and_member_and_version_are_named(two_parts, silent_hub):
    two_parts.packages[0].member = "toy_part1/other"
    with pytest.raises(ModelFault, match=r"toy-part1==1.0 has no file toy_part1/other \(it has: toy_part1/a.part0\)"):
        model_sources.locate_weights(two_parts)
    two_parts.packages[0].requirement = "toy-part9==1.0"
    with pytest.raises(ModelFault, match=r"toy-part9==1.0 cannot be fetched \(ERROR: No matching distribution"):
        model_sources.locate_weights(two_parts)
    two_parts.packages[0].requirement = "toy-part1"
    with pytest.raises(ModelFault, match="pin it as name==version"):
        model_sources.locate_weights(two_parts)


def test_package_model_without_hashes_is_refused(two_parts):
    two_parts.sha256 = None
    with pytest.raises(ModelFault, match=r"needs model.packages and model.sha256"):
        model_sources.locate_weights(two_parts)
