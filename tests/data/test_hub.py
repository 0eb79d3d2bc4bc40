"""Data sets on the hub, with and without a network."""

import pytest

from harness.data.hub import read_hub
from harness.data.sources import data_sha256
from tests.support.data_cases import fault, settings


def test_a_hub_name_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'some/name' on the Hub\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    text = fault("some/name")
    assert "data.path=some/name" in text
    assert "Couldn't reach" in text
    assert "second line" not in text
    assert "set data.path to the file" in text
    assert data_sha256(settings("some/name")) is None


def test_a_silent_hub_is_left_out_and_the_cache_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    offline = []

    def load_dataset(*_: object, **__: object) -> list:
        offline.append((datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        return ["row"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_hub("some/name", "train", None, None, None) == [(1, "row")]
    assert offline == [(True, True)]


def test_a_hub_that_knows_no_such_data_set_is_not_taken_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import httpx
    from huggingface_hub.errors import RepositoryNotFoundError

    def unknown(*_: object, **__: object) -> None:
        raise RepositoryNotFoundError("unknown", response=httpx.Response(404, request=httpx.Request("GET", "http://x")))

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unknown)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [])
    read_hub("some/name", "train", None, None, None)
    assert datasets.config.HF_HUB_OFFLINE is False
