"""A run's model without PEFT: written whole, equal to the unmerged one, and scored beside it."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.adapters import save_load
from harness.errors import ConfigFault, ModelFault
from harness.models.base import fork, load_base
from harness.models.peft_adapters import ADAPTER_NOTE
from harness.plan.from_record import plan_of_record
from harness.stages import export
from harness.stages.score import score_export
from tests.support.exports import options_of
from tests.support.runs import plan_of


@pytest.mark.slow
@pytest.mark.parametrize("which", ["lora none", "lora nf4"])
def test_merged_model_equals_the_unmerged_one_and_needs_no_peft(which, made, tmp_path):
    options, record = options_of(made, which, tmp_path / "merged", "stage=export")
    export.export_model(options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]  # nothing half-written beside it
    plan = plan_of_record(record)
    base = load_base(plan.model)
    adapter = made[1] / record["fingerprint"] / record["adapter"]["path"]
    unmerged = save_load.load_adapter(fork(base, False), adapter, plan)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before, wanted, got = base.model(ids).logits, unmerged(input_ids=ids).logits, plain(ids).logits
    assert (got - wanted).abs().max() < 1e-4 < (before - wanted).abs().max()
    note = json.loads((tmp_path / "merged" / ADAPTER_NOTE).read_text())
    assert note["fingerprint"] == record["fingerprint"]
    assert note["template"] == record["plan"]["data"]["template"]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantized_export_is_smaller_and_loads(kind, made, tmp_path):
    pytest.importorskip("bitsandbytes")
    for name, quantization in (("plain", "none"), ("small", kind)):
        words = ("stage=export", f"export.quantization={quantization}")
        export.export_model(options_of(made, "lora none", tmp_path / name, *words)[0])
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).glob("*.safetensors")) for name in ("plain", "small")
    ]
    assert sizes[1] < sizes[0]
    options, record = options_of(made, "lora none", tmp_path / "small", "stage=score")
    score_export(options)
    found = json.loads((made[1] / record["fingerprint"] / f"export-{kind}.json").read_text())["scores"]
    assert found["export"]["loss"] == pytest.approx(found["adapter"]["loss"], rel=0.1)


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(made, tmp_path):
    with pytest.raises(ModelFault, match="peft=prompt_tuning cannot be exported without PEFT"):
        export.export_model(options_of(made, "prompt_tuning none", tmp_path / "merged", "stage=export")[0])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_and_missing_settings_are_refused(made, tmp_path):
    with pytest.raises(ConfigFault, match="exists and is not overwritten"):
        export.export_model(options_of(made, "lora none", tmp_path, "stage=export")[0])
    with pytest.raises(ConfigFault, match="stage=export needs run="):
        export.export_model(plan_of("stage=export")[1])
