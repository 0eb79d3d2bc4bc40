"""stage=bundle and stage=verify: an archive is made, repeated elsewhere, and compared."""

import io
import json
import tarfile

import pytest

from harness.record.bundle import LOCK, MANIFEST, changed_versions, lock_lines, unpack_bundle, write_bundle
from harness.stages.verify import agree
from tests.support.runs import command, overrides, write_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory, random_qwen2):
    """A folder with the two runs of a sweep."""
    folder = tmp_path_factory.mktemp("place")
    words = overrides(random_qwen2, write_rows(folder / "rows"), folder / "runs")
    done = command("-m", *words, "peft=lora,ia3", "sweep.name=mine")
    assert done.code == 0, done.err
    return folder


def bundled(place, target, *words):
    done = command("stage=bundle", *words, f"runs_dir={place / 'runs'}", f"bundle.path={target}")
    assert done.code == 0, done.err
    assert "stage=verify bundle.path=" in done.err
    return target


@pytest.fixture(scope="module")
def archive(place):
    return bundled(place, place / "mine.tar.gz", "report.sweep=mine")


def verified(tmp_path, archive, *more):
    places = (f"bundle.dir={tmp_path / 'again'}", f"runs_dir={tmp_path / 'runs'}")
    done = command("stage=verify", f"bundle.path={archive}", *places, *more)
    file = tmp_path / "again" / "verify.json"
    return done, json.loads(file.read_text()) if file.exists() else None


def members(archive):
    with tarfile.open(archive) as source:
        return {member.name: source.extractfile(member).read() for member in source.getmembers()}


def changed(archive, target, name, change):
    """The archive with one member changed, and its checksums made anew."""
    content = members(archive)
    manifest = json.loads(content.pop(MANIFEST))
    content[name] = change(content[name])
    write_bundle(target, content, {key: value for key, value in manifest.items() if key not in ("format", "sha256")})
    return target


def test_a_bundle_holds_all_that_it_takes_to_repeat_its_runs(archive, tmp_path):
    manifest = unpack_bundle(archive, tmp_path)
    names = set(manifest["sha256"])
    assert len(manifest["runs"]) == 2
    for run in manifest["runs"]:
        assert {f"configs/{run}.yaml", f"runs/{run}/record.json", f"runs/{run}/predictions.jsonl"} <= names
        assert f"runs/{run}/adapter/adapter_config.json" in names
        assert len(manifest["runs"][run]["data"]["data"]) == 64
    assert {LOCK, "report/report.html", "report/report.json"} <= names
    assert any(name.startswith("sweeps/") and name.endswith("sweep.json") for name in names)
    assert "torch==" in (tmp_path / LOCK).read_text()
    assert manifest["command"].startswith("python -m harness")
    assert set(manifest["code"]) == {"version", "git_commit", "git_dirty"}


def test_a_repeated_bundle_agrees_and_is_not_repeated_twice(archive, tmp_path):
    done, result = verified(tmp_path, archive)
    assert done.code == 0, done.err + done.out
    assert "2 of 2 repeated runs agree" in done.out
    assert {each["state"] for each in result["runs"]} == {"agrees"}
    names = {figure["name"] for figure in result["runs"][0]["figures"]}
    assert {"after.loss", "before.loss", "parameters.trainable", "supervised_tokens", "optimizer_steps"} <= names
    again, _ = verified(tmp_path, archive)
    assert again.code == 0
    assert "2 of 2" in again.out
    attempts = [json.loads(file.read_text())["attempt"] for file in (tmp_path / "again").glob("*/record.json")]
    assert attempts == [1, 1]


def test_a_figure_that_does_not_come_out_is_named(archive, tmp_path):
    def worse(content):
        record = json.loads(content)
        record.pop("sha256")
        record["scores"]["after"]["loss"] += 0.5
        return json.dumps(record).encode()

    name = next(each for each in members(archive) if each.endswith("record.json"))
    done, result = verified(tmp_path, changed(archive, tmp_path / "changed.tar.gz", name, worse))
    assert done.code == 1
    assert "1 of 2 repeated runs agree" in done.out
    assert "1 of 2 runs did not reproduce the results in changed.tar.gz" in done.err
    [differing] = [each for each in result["runs"] if each["state"] == "differs"]
    assert [figure["name"] for figure in differing["figures"] if not figure["agrees"]] == ["after.loss"]


def test_at_most_so_many_runs_are_repeated(archive, tmp_path):
    done, result = verified(tmp_path, archive, "bundle.runs=1")
    assert done.code == 0, done.err
    assert [each["state"] for each in result["runs"]] == ["agrees", "not repeated"]


def test_data_that_lie_elsewhere_are_found_by_their_name(archive, place, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    (place / "rows").rename(moved / "rows")
    try:
        lost, result = verified(tmp_path, archive, "bundle.runs=1")
        assert lost.code == 1
        assert result["runs"][0]["state"] == "cannot be repeated"
        assert "no such file or folder" in result["runs"][0]["why"]
        found, _ = verified(tmp_path, archive, "bundle.runs=1", f"bundle.files={moved}")
        assert found.code == 0, found.err + found.out
    finally:
        (moved / "rows").rename(place / "rows")


def test_changed_rows_are_not_taken_for_those_of_the_bundle(archive, place, tmp_path):
    file = place / "rows" / "train.jsonl"
    before = file.read_text()
    file.write_text(before.replace("blue", "pink"))
    try:
        done, result = verified(tmp_path, archive, "bundle.runs=1")
    finally:
        file.write_text(before)
    assert done.code == 1
    assert "its rows have changed" in result["runs"][0]["why"]


def test_other_packages_are_named_before_the_first_run(archive, tmp_path):
    older = changed(archive, tmp_path / "older.tar.gz", LOCK, lambda _: b"torch==1.0\nno-such-package==2.0\n")
    done, result = verified(tmp_path, older, "bundle.runs=1")
    assert done.code == 0, done.err
    assert "no-such-package is missing here, 2.0 there" in done.err
    assert len(result["versions"]) == 2


def test_a_bundle_without_adapters_is_repeated_all_the_same(place, tmp_path):
    words = ("report.where=method == ia3", "bundle.adapters=false")
    target = bundled(place, tmp_path / "small.tar.gz", *words)
    assert not any("/adapter/" in name for name in members(target))
    assert verified(tmp_path, target)[0].code == 0


def test_a_claim_is_bundled_with_the_runs_that_it_names(place, tmp_path):
    runs = sorted(file.parent.name for file in (place / "runs").glob("*/record.json"))
    folder = place / "runs" / "claims" / "better"
    folder.mkdir(parents=True)
    (folder / "claim.json").write_text(json.dumps({"verdict": "supported", "pairs": [{"a": runs[0], "b": runs[1]}]}))
    target = bundled(place, tmp_path / "claim.tar.gz", "bundle.claim=better")
    manifest = unpack_bundle(target, tmp_path / "in")
    assert sorted(manifest["runs"]) == runs
    assert manifest["claim"] == "better"
    assert "claims/better/claim.json" in manifest["sha256"]
    unknown = command("stage=bundle", "bundle.claim=worse", f"runs_dir={place / 'runs'}")
    assert unknown.code == 2
    assert "bundle.claim=worse is not a claim" in unknown.err
    assert "better" in unknown.err


def test_a_bundle_has_a_name_of_its_own_in_the_folder_of_runs(place):
    done = command("stage=bundle", "report.sweep=mine", f"runs_dir={place / 'runs'}")
    assert done.code == 0, done.err
    assert (place / "runs" / "bundles" / "mine.tar.gz").is_file()


def test_an_archive_of_everything_must_be_asked_for(place):
    done = command("stage=bundle", f"runs_dir={place / 'runs'}")
    assert done.code == 2
    assert "stage=bundle would take every run" in done.err


def test_a_file_that_is_no_bundle_is_refused(tmp_path):
    assert "bundle.path is null" in command("stage=verify").err
    assert "is not a file" in command("stage=verify", f"bundle.path={tmp_path / 'none.tar.gz'}").err
    (tmp_path / "x.tar.gz").write_text("no archive")
    done = command("stage=verify", f"bundle.path={tmp_path / 'x.tar.gz'}")
    assert done.code == 2
    assert "is not an archive of stage=bundle" in done.err


def test_a_damaged_member_is_found_before_anything_runs(archive, tmp_path):
    target = tmp_path / "damaged.tar.gz"
    with tarfile.open(target, "w:gz") as copy:
        for name, content in members(archive).items():
            member = tarfile.TarInfo(name)
            changed_content = content[:-2] + b"9\n" if name == LOCK else content
            member.size = len(changed_content)
            copy.addfile(member, io.BytesIO(changed_content))
    done, _ = verified(tmp_path, target)
    assert done.code == 2
    assert "checksum mismatch in lock.txt" in done.err


def test_a_member_outside_the_archive_is_refused(tmp_path):
    target = tmp_path / "evil.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    done = command("stage=verify", f"bundle.path={target}")
    assert done.code == 2
    assert "is not a plain file inside it" in done.err
    assert not (tmp_path.parent / "evil").exists()


def test_figures_agree_within_the_tolerance():
    assert agree(1.0, 1.00005, 1e-4)
    assert not agree(1.0, 1.001, 1e-4)
    assert agree(0.0, 0.0, 0)
    assert not agree(0.5, None, 1e-4)
    assert agree("abc", "abc", 0)
    assert not agree("abc", "abd", 1)


def test_a_lock_file_is_compared_with_what_is_installed():
    assert changed_versions(lock_lines()) == []
