"""Models on the hub, with and without a network."""

import time

import pytest

from harness.config.schema import ModelSource
from harness.errors import ModelFault
from harness.models import sources as model_sources
from harness.runtime import hub
from tests.support.model_cases import model, snapshot

pytestmark = pytest.mark.usefixtures("own_cache")


def test_silent_hub_without_cache_fails_fast_and_names_the_remedy(silent_hub):
    with pytest.raises(ModelFault, match=r"model.path=a/b: the hub did not answer .*no route.*model.source=folder"):
        model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))


def test_hub_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: time.sleep(3))
    with pytest.raises(ModelFault, match=r"did not answer \(timed out after 0.2 s\)"):
        model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))


def test_hub_cache_serves_without_network_and_says_so(tmp_path, silent_hub):
    path = snapshot(tmp_path / "hub")
    located = model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))
    assert (located.folder, located.origin) == (path, "hub")
    assert "loaded from the hub cache" in located.note


def test_hub_model_without_safetensors_is_refused(tmp_path, silent_hub):
    path = snapshot(tmp_path / "hub")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelFault, match="no safetensors weights"):
        model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))
