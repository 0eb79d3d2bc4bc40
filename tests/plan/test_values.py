"""Values that no record can hold and paths that cannot exist are refused, whatever they mean."""

import pytest

from harness.config import schema
from harness.plan import values


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**63, "64 bits"),
        (-(10**4000), "64 bits"),
        ([1, {"a": float("inf")}], "finite"),
        ("a\0b", "UTF-8"),
        ("\udce4", "UTF-8"),
        ({"\udce4": 1}, "UTF-8"),
    ],
)
def test_value_that_cannot_be_kept_is_refused_briefly(value, said):
    [(key, fault)] = values.value_faults("model.config_only", value)
    assert key.startswith("model.config_only")
    assert said in fault
    assert len(fault.encode()) < 500


@pytest.mark.parametrize("value", [0, True, 2**63 - 1, 1.5, "药 é \n", None, [], {}, [{"a": None}]])
def test_value_that_can_be_kept_passes(value):
    assert list(values.value_faults("key", value)) == []


@pytest.mark.posix
def test_records_need_a_folder_that_can_be_written(tmp_path, monkeypatch):
    assert list(values.unwritable_folder(str(tmp_path / "new" / "runs"), schema.Stage.run)) == []
    (tmp_path / "file").write_text("")
    [fault] = values.unwritable_folder(str(tmp_path / "file" / "runs"), schema.Stage.run)
    assert f"{tmp_path / 'file'} is not a folder" in fault
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert list(values.unwritable_folder(str(tmp_path / "dangling"), schema.Stage.run))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the tests may run as root
    [fault] = values.unwritable_folder(str(tmp_path / "runs"), schema.Stage.run)
    assert "no permission" in fault
    assert list(values.unwritable_folder(str(tmp_path / "runs"), schema.Stage.plan)) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x" * 256, "has a part of more than 255 bytes"),
        ("药" * 90, "has a part of more than 255 bytes"),
        ("x/" * 3000, "has more than 4095 bytes"),
        ("~nobody_of_that_name/x", "starts with the home of an unknown user"),
        ("https://host/rows.jsonl", "is an address (https), not a path of this machine"),
        ("file:///data/rows.jsonl", "write data.path=/data/rows.jsonl"),
    ],
)
def test_path_that_cannot_exist_is_refused_briefly(path, message):
    [fault] = values.path_faults("data.path", path)
    assert fault.startswith("data.path=")
    assert message in fault
    assert len(fault) < 500


@pytest.mark.parametrize("path", ["a/b.jsonl", "~/runs", "C:/runs", "a:b/c", "org/name", "药.csv", "x" * 255, "\udce4"])
def test_path_that_can_exist_passes(path):
    assert list(values.path_faults("data.path", path)) == []


@pytest.mark.parametrize("key", values.WRITTEN)
def test_folder_of_runs_in_an_object_store_is_refused_with_the_reason(key):
    [fault] = values.path_faults(key, "s3://bucket/runs")
    assert fault.startswith(f"{key}=s3://bucket/runs is an address (s3)")
    assert "atomic renames of folders" in fault
    assert "docs/object_storage.md" in fault
