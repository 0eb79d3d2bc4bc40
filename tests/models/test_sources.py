"""Where weights come from: folders, files, and the hash of their content."""

import subprocess
import sys

import pytest

from harness.config.schema import ModelSource
from harness.errors import ModelFault
from harness.models import sources as model_sources
from tests.support.model_cases import files, model

pytestmark = pytest.mark.usefixtures("own_cache")


def test_importing_sources_loads_no_torch():
    code = "import sys, harness.models.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folder_is_found_absolute_in_the_working_directory_and_shipped(tmp_path, monkeypatch):
    here = files(tmp_path / "here")
    assert model_sources.locate_weights(model(path=str(here))).folder == here
    monkeypatch.chdir(tmp_path)
    assert model_sources.locate_weights(model(path="here")).folder.samefile(here)
    monkeypatch.setattr(model_sources, "shipped_folder", lambda name: tmp_path / name)
    shipped = files(tmp_path / "data" / "tiny")
    located = model_sources.locate_weights(model(path="tiny"))
    assert (located.folder, located.origin) == (shipped, "folder")


@pytest.mark.parametrize(("source", "what"), [(ModelSource.folder, "folder"), (ModelSource.gguf, "GGUF file")])
def test_missing_path_names_key_value_and_where_it_looked(source, what):
    with pytest.raises(ModelFault, match=rf"model.path=no/such: no such {what} \(looked at .*no/such.*data/no/such"):
        model_sources.locate_weights(model(source=source, path="no/such"))


def test_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelFault, match=r"no config.json; give a folder written by save_pretrained"):
        model_sources.locate_weights(model(path=str(tmp_path)))


@pytest.mark.parametrize("source", [ModelSource.folder, ModelSource.gguf, ModelSource.hub])
def test_empty_path_is_refused(source):
    with pytest.raises(ModelFault, match=r"model.path is empty"):
        model_sources.locate_weights(model(source=source))


def test_hash_follows_content_and_not_place_or_cards(tmp_path):
    one = files(tmp_path / "one", **{"model.safetensors": b"12"})
    two = files(tmp_path / "two", **{"model.safetensors": b"12", "README.md": b"a card"})
    three = files(tmp_path / "three", **{"model.safetensors": b"13"})
    hashes = [model_sources.weights_hash(model(path=str(path))) for path in (one, two, three)]
    assert hashes[0] == hashes[1] != hashes[2]
    (one / "model.safetensors").write_bytes(b"13")
    assert model_sources.weights_hash(model(path=str(one))) == hashes[2]


def test_every_byte_of_large_weights_counts(tmp_path):
    path = files(tmp_path / "big") / "model.safetensors"

    def write(size: int, at: int) -> str | None:
        with path.open("wb") as stream:  # sparse: takes no disk
            stream.truncate(size)
            stream.seek(at)
            stream.write(b"x")
        return model_sources.weights_hash(model(path=str(path.parent)))

    size = 200 * model_sources.MIB
    places = (0, size - 1, 5, size // 3 + 12345, 77 * model_sources.MIB + 7)
    assert len({*(write(size, at) for at in places), write(size + 1, 0)}) == 6


def test_a_gguf_file_is_its_content_and_not_its_name(tmp_path):
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    for file in (one, two):
        file.write_bytes(b"GGUF weights")
    hashes = {model_sources.weights_hash(model(source=ModelSource.gguf, path=str(file))) for file in (one, two)}
    assert len(hashes) == 1


def test_hash_of_hub_and_package_needs_no_network():
    assert model_sources.weights_hash(model(source=ModelSource.hub, path="a/b")) is None
    assert model_sources.weights_hash(model(source=ModelSource.package, sha256="f00")) == "f00"
