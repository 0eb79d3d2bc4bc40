"""Whether the owner of a lock still runs: a wrong "dead" would mean two owners."""

import pytest

from harness.record import lock_owners
from harness.record.locks import describe, take_lock


@pytest.fixture
def me(tmp_path):
    with take_lock(tmp_path) as lock:
        yield lock.owner


def test_living_knows_this_process_and_only_on_this_machine(me):
    assert lock_owners.living(me) is True
    assert lock_owners.living(me | {"where": "same-host other-boot pid:[1]"}) is None
    assert lock_owners.living({key: value for key, value in me.items() if key != "where"}) is None


@pytest.mark.linux
def test_reused_process_id_is_not_the_owner(me):
    assert lock_owners.living(me | {"ticks": me["ticks"] - 1}) is False


@pytest.mark.linux
def test_a_wall_clock_that_was_set_makes_nobody_dead(me):
    assert lock_owners.living(me | {"pid_started": me["pid_started"] - 3600}) is True


def test_hidden_process_is_unknown_rather_than_dead(me, monkeypatch):
    monkeypatch.setattr(lock_owners, "process_state", lambda pid: ("", None))
    monkeypatch.setattr(lock_owners.provenance, "alive", lambda owner: False)
    assert lock_owners.living(me) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": 1}', b'{"pid": true, "host": "n", "token": "t", "stale_s": 1}', b"\xff"]
)
def test_what_does_not_name_an_owner_is_none(content):
    assert lock_owners.parse_owner(content) == {}
    assert describe({}) == "an unknown process"
