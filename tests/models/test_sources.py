"""Weights: every source, what each refuses, and a cache that survives kills and company."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from harness.config.schema import DType, Model, ModelSource, Package, Quantization
from harness.errors import ModelFault
from harness.models import gguf as model_gguf
from harness.models import hub
from harness.models import sources as model_sources
from harness.models.gguf import ORIGIN, hashlib
from harness.models.hub import _hub_commit
from harness.record import store
from tests.support.paths import ROOT


def model(**changes) -> Model:
    values = {
        "name": "toy", "source": ModelSource.folder, "path": None, "revision": None, "packages": [], "sha256": None,
        "config_only": None, "dtype": DType.auto, "device": "cpu", "device_map": None,
        "attn_implementation": None, "trust_remote_code": False, "quantization": Quantization.none, "prune": 0.0,
    }  # fmt: skip
    return Model(**{**values, **changes})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    _hub_commit.cache_clear()
    store.say_once.cache_clear()
    yield
    _hub_commit.cache_clear()


@pytest.fixture
def silent_hub(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)


def folder(path: Path, **files: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": b"{}", **files}.items():
        (path / name).write_bytes(content)
    return path


# --- folders and files


def test_importing_weights_loads_no_torch():
    code = "import sys, harness.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folder_is_found_absolute_in_the_working_directory_and_shipped(tmp_path, monkeypatch):
    here = folder(tmp_path / "here")
    assert model_sources.locate_weights(model(path=str(here))).folder == here
    monkeypatch.chdir(tmp_path)
    assert model_sources.locate_weights(model(path="here")).folder.samefile(here)
    monkeypatch.setattr(model_sources, "shipped", lambda name: tmp_path / name)
    shipped = folder(tmp_path / "data" / "tiny")
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


def test_digest_follows_content_and_not_place_or_cards(tmp_path):
    one = folder(tmp_path / "one", **{"model.safetensors": b"12"})
    two = folder(tmp_path / "two", **{"model.safetensors": b"12", "README.md": b"a card"})
    three = folder(tmp_path / "three", **{"model.safetensors": b"13"})
    digests = [model_sources.weights_digest(model(path=str(path))) for path in (one, two, three)]
    assert digests[0] == digests[1] != digests[2]
    (one / "model.safetensors").write_bytes(b"13")
    assert model_sources.weights_digest(model(path=str(one))) == digests[2]


def test_digest_of_large_weights_sees_both_ends_and_the_size(tmp_path):
    path = folder(tmp_path / "big") / "model.safetensors"

    def write(size: int, at: int) -> str | None:
        with path.open("wb") as stream:  # sparse: takes no disk
            stream.truncate(size)
            stream.seek(at)
            stream.write(b"x")
        return model_sources.weights_digest(model(path=str(path.parent)))

    size = 200 * model_sources.MIB
    assert len({write(size, 0), write(size, size - 1), write(size, 5), write(size + 1, 0)}) == 4


def test_digest_of_hub_and_package_needs_no_network():
    assert model_sources.weights_digest(model(source=ModelSource.hub, path="a/b")) is None
    assert model_sources.weights_digest(model(source=ModelSource.package, sha256="f00")) == "f00"


# --- the hub


def test_silent_hub_without_cache_fails_fast_and_names_the_remedy(silent_hub):
    started = time.perf_counter()
    with pytest.raises(ModelFault, match=r"model.path=a/b: the hub gave no answer .*no route.*model.source=folder"):
        model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))
    assert time.perf_counter() - started < 5


def test_hub_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: time.sleep(3))
    with pytest.raises(ModelFault, match=r"no answer \(none in 0.2 s\)"):
        model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))


def snapshot(root: Path, commit: str = "c0ffee") -> Path:
    (root / "models--a--b" / "refs").mkdir(parents=True)
    (root / "models--a--b" / "refs" / "main").write_text(commit)
    return folder(root / "models--a--b" / "snapshots" / commit, **{"model.safetensors": b"12"})


def test_hub_cache_serves_without_network_and_says_so(tmp_path, silent_hub):
    path = snapshot(tmp_path / "hub")
    located = model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))
    assert (located.folder, located.origin, located.digest) == (path, "hub", "c0ffee")
    assert "hub cache used" in located.note


def test_hub_model_without_safetensors_is_refused(tmp_path, silent_hub):
    path = snapshot(tmp_path / "hub")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelFault, match="no safetensors weights"):
        model_sources.locate_weights(model(source=ModelSource.hub, path="a/b"))


# --- packages that carry a GGUF file


def wheel(index: Path, name: str, member: str, content: bytes) -> None:
    index.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nope\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
            Package("toy-part1==1.0", "toy_part1/a.part0", sha(b"first ")),
            Package("toy-part2==1.0", "toy_part2/a.part1", sha(b"second")),
        ],
        sha256=sha(b"first second"),
    )


def nothing_left(tmp_path: Path) -> bool:
    return not [path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"]


def test_packages_are_joined_checked_cached_and_announced(two_parts, silent_hub, monkeypatch, caplog):
    located = model_sources.locate_weights(two_parts)
    assert (located.folder / "whole").read_bytes() == b"first second"
    assert (located.origin, located.digest) == ("package", two_parts.sha256)
    assert "toy-part1==1.0, toy-part2==1.0, so not those of the hub" in located.note
    assert "the hub gave no answer (ConnectionError: no route to host)" in located.note
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


# --- the cache, among several processes


WORKER = """
import sys, time
from pathlib import Path
from harness import converted

def convert(gguf, into, sha256):
    into.mkdir()
    (into / "half").write_text("x")
    with open({log!r}, "a") as log: log.write("converted\\n")
    time.sleep({seconds})
    (into / converted.ORIGIN).write_text('{{"sizes": {{"half": 1}}}}')

converted.convert = convert
print(converted.folder("dotted.name", "ab" * 32, lambda scratch: Path("any.gguf")))
"""


def start(log: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(log=str(log), seconds=seconds)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_many_processes_convert_once(tmp_path):
    workers = [start(tmp_path / "log", 0.5) for _ in range(3)]
    results = {worker.communicate(timeout=60)[0].strip() for worker in workers}
    assert len(results) == 1
    assert Path(results.pop()).is_dir()
    assert lines(tmp_path / "log") == 1


def test_killed_conversion_leaves_nothing_that_looks_whole(tmp_path):
    victim = start(tmp_path / "log", 60)
    while lines(tmp_path / "log") < 1:
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    models = tmp_path / "cache" / "models"
    assert [path for path in models.iterdir() if path.name.startswith(".dotted")]  # the wreck
    assert not [path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")]
    out, _ = start(tmp_path / "log", 0).communicate(timeout=60)
    assert (Path(out.strip()) / "half").is_file()
    assert not [path for path in models.iterdir() if path.is_dir() and path.name.startswith(".")]  # cleared away


def test_truncated_cache_is_made_again(two_parts, silent_hub):
    whole = model_sources.locate_weights(two_parts).folder / "whole"
    whole.write_bytes(b"first")
    assert (model_sources.locate_weights(two_parts).folder / "whole").read_bytes() == b"first second"


def test_unwritable_cache_names_the_variable(two_parts, silent_hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelFault, match="set PEFT_HARNESS_CACHE to a writable folder"):
        model_sources.locate_weights(two_parts)
