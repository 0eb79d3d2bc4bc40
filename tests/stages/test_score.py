"""stage=score: an export is scored by the protocol of its run, and compared with it."""

import json

import pytest

from harness.errors import ConfigFault, ModelFault
from harness.stages import export
from harness.stages.score import score_export
from tests.support.exports import options_of
from tests.support.runs import plan_of


def test_export_is_scored_beside_its_run_by_the_same_protocol(made, tmp_path):
    options, record = options_of(made, "lora none", tmp_path / "merged", "stage=export")
    export.export_model(options)
    again, _ = options_of(made, "lora none", tmp_path / "merged", "stage=score")
    score_export(again)
    found = json.loads((made[1] / record["fingerprint"] / "export-none.json").read_text())["scores"]
    assert found["before"] == record["scores"]["before"]
    assert found["adapter"] == record["scores"]["after"]
    assert found["export"]["loss"] == pytest.approx(found["adapter"]["loss"], abs=1e-4)
    other, _ = options_of(made, "lora nf4", tmp_path / "merged", "stage=score")
    with pytest.raises(ModelFault, match="is an export of run"):
        score_export(other)


def test_a_folder_that_is_no_export_is_not_scored(made, random_qwen2):
    with pytest.raises(ModelFault, match="is not an export of the harness"):
        score_export(options_of(made, "lora none", random_qwen2, "stage=score")[0])


def test_missing_settings_are_refused():
    with pytest.raises(ConfigFault, match="stage=score needs run="):
        score_export(plan_of("stage=score")[1])
