"""Which addresses other machines can reach."""

import pytest

from harness.runtime.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LocalHost"])
def test_this_machine_alone_reaches_its_own_addresses(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "192.168.1.4", "fe80::1", "example.org", "localhost.example.org", "127.0.0.1.evil.net"],
)
def test_others_may_be_reached_from_elsewhere(host):
    assert not is_loopback(host)
