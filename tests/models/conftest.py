"""A saved network, an empty cache, a silent hub, and a model in two packages."""

from pathlib import Path

import pytest

from harness.config.schema import ModelSource, Package
from harness.models import base as model_base
from harness.models import gguf as model_gguf
from harness.models.gguf import ORIGIN
from harness.models.hub import hub_commit
from harness.record import store
from tests.support.model_cases import model, network, sha, tokenizer, wheel


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    hub_commit.cache_clear()
    store.say_once.cache_clear()
    yield
    hub_commit.cache_clear()


@pytest.fixture
def silent_hub(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)


@pytest.fixture
def two_parts(tmp_path, monkeypatch):
    """A model in two wheels of a local index, fetched by the real pip; the conversion is a stand-in."""
    wheel(tmp_path / "index", "toy_part1", "toy_part1/a.part0", b"first ")
    wheel(tmp_path / "index", "toy_part2", "toy_part2/a.part1", b"second")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))

    def convert(gguf: Path, into: Path, sha256: str) -> None:
        into.mkdir()
        (into / "whole").write_bytes(gguf.read_bytes())
        (into / ORIGIN).write_text('{"sizes": {"whole": 12}}')

    monkeypatch.setattr(model_gguf, "convert_gguf", convert)
    return model(
        source=ModelSource.package,
        path="a/b",
        packages=[
            Package(requirement="toy-part1==1.0", member="toy_part1/a.part0", sha256=sha(b"first ")),
            Package(requirement="toy-part2==1.0", member="toy_part2/a.part1", sha256=sha(b"second")),
        ],
        sha256=sha(b"first second"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    network().save_pretrained(path)
    tokenizer(eos_token="<|im_end|>", unk_token="<|endoftext|>").save_pretrained(path)
    return path


@pytest.fixture
def base(folder):
    return model_base.load_base(model(folder))
