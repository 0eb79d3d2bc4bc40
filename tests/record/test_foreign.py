"""Result files of PEFT's method_comparison, of several versions, as records."""

import json

import pytest

from harness.errors import DataFault
from harness.record import store
from harness.record.foreign import UNSTATED, record_of_file
from tests.support.published import MODEL, write_result


def test_a_result_is_a_valid_record_with_what_the_file_states(tmp_path):
    record = record_of_file(write_result(tmp_path))
    assert store.schema_faults(record) == []
    assert record["foreign"]["source"] == "PEFT method_comparison"
    assert record["foreign"]["experiment"] == "lora/tiny-rank4"
    assert record["foreign"]["data"] == ["gsm8k", "metamath"]
    assert record["scores"]["after"] == {"final_number": 37.5, "forgetting": 0.125}
    assert record["plan"]["settings"] == {"r": 4, "lora_alpha": 8}
    assert (record["plan"]["learning_rate"], record["plan"]["trainer"]["weight_decay"]) == (0.002, 0.1)
    assert record["parameters"] == {"total": 100000, "trainable": 1000, "share": 0.01}
    assert record["memory_bytes"]["train_peak"] == 4096
    assert record["training"]["curve"] == [{"step": 10, "loss": 2.5}, {"step": 20, "loss": 1.5}]
    assert record["finished"] == "2025-03-01T10:01:40.500+00:00"
    assert record["versions"]["peft"] == "0.15.0"


def test_a_result_of_an_earlier_version_has_its_memory_and_device(tmp_path):
    file = write_result(
        tmp_path,
        train_info__accelerator_memory_max=...,
        train_info__cuda_memory_max=512,
        meta_info__system_info={"system": "Linux", "gpu": "Old GPU"},
    )
    record = record_of_file(file)
    assert store.schema_faults(record) == []
    assert record["memory_bytes"]["train_peak"] == 512
    assert record["device"] == {"type": "cuda", "name": "Old GPU", "platform": "Linux"}


def test_full_fine_tuning_has_no_configuration_of_peft_and_an_unstated_weight_decay(tmp_path):
    file = write_result(tmp_path, run_info__peft_config=None, run_info__train_config__optimizer_kwargs={"lr": 1e-5})
    record = record_of_file(file)
    assert store.schema_faults(record) == []
    assert (record["method"], record["plan"]["settings"]) == ("full", {})
    assert record["plan"]["trainer"]["weight_decay"] == UNSTATED


def test_a_result_without_meta_information_is_read(tmp_path):
    record = record_of_file(write_result(tmp_path, meta_info={}))
    assert store.schema_faults(record) == []
    assert record["plan"]["model"]["path"] == MODEL
    assert record["foreign"]["data"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_info__status": "failed", "run_info__error_msg": "CUDA out of memory"}, "status failed .CUDA out"),
        ({"train_info__metrics": [{"step": 1, "train loss": 2.0}]}, "no test score"),
        ({"train_info__metrics": ...}, "is not a result file of PEFT method_comparison"),
        ({"run_info__train_config": ...}, "KeyError: 'train_config'"),
        ({"run_info__created_at": "yesterday"}, "ValueError"),
    ],
)
def test_a_file_without_a_result_says_why(tmp_path, changes, said):
    with pytest.raises(DataFault, match=said):
        record_of_file(write_result(tmp_path, **changes))


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataFault, match=r"x\.json cannot be read as JSON"):
        record_of_file(tmp_path / "x.json")


def test_readers_of_ones_own_runs_do_not_see_it(tmp_path):
    record = record_of_file(write_result(tmp_path / "results"))
    store.write_record(tmp_path / "runs", record)
    assert store.all_records(tmp_path / "runs") == []
    [seen] = store.all_records(tmp_path / "runs", foreign=True)
    assert json.loads(json.dumps(seen)) == json.loads(json.dumps(record))
