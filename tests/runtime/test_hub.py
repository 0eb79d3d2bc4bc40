"""A question to the hub: its answer, its refusal, or silence after a few seconds."""

import threading

import httpx
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from harness.runtime import hub


def test_the_answer_comes_back():
    assert hub.ask_hub(lambda api, timeout: (type(api).__name__, timeout)) == ("HfApi", hub.TIMEOUT_S)


def test_a_refusal_is_an_answer():
    def refuse(api, timeout):
        request = httpx.Request("GET", "http://x")
        raise RepositoryNotFoundError("unknown", response=httpx.Response(404, request=request))

    with pytest.raises(RepositoryNotFoundError):
        hub.ask_hub(refuse)


def test_a_missing_network_is_silence_with_its_reason():
    def unreachable(api, timeout):
        raise ConnectionError("no route to host\nand a second line")

    with pytest.raises(hub.HubSilent, match=r"^ConnectionError: no route to host$"):
        hub.ask_hub(unreachable)


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.1)
    answered = threading.Event()  # a call that waited for the hub would get an answer after a minute
    with pytest.raises(hub.HubSilent, match=r"timed out after 0.1 s"):
        hub.ask_hub(lambda api, timeout: answered.wait(60))
    answered.set()
