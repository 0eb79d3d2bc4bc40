"""A run's model without PEFT: written whole, equal to the unmerged one, and scored beside it."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.adapters import save_load
from harness.errors import ConfigFault, ModelFault
from harness.models.base import fork, load_base
from harness.plan.from_record import plan_of_record
from harness.stages import export
from harness.stages.score import score_export
from tests.support.runs import command, overrides, plan_of, records_of, write_rows


@pytest.fixture(scope="module")
def made(tmp_path_factory, random_qwen2):
    """Finished runs of three kinds, by their method, and the words that find them again."""
    folder = tmp_path_factory.mktemp("export")
    rows, runs_dir = write_rows(folder / "rows", train_rows=8, others=4), folder / "runs"
    words = [*overrides(random_qwen2, rows, runs_dir), "trainer.learning_rate=1e-2"]
    for more in ([], ["model.quantization=nf4", "lora.r=4"], ["peft=prompt_tuning"]):
        done = command(*words, *more)
        assert done.code == 0, done.err
    return {
        f"{kept['method']} {kept['plan']['model']['quantization']}": kept for kept in records_of(runs_dir).values()
    }, runs_dir


def options_of(made, which, folder, *more):
    kept, runs_dir = made[0][which], made[1]
    return plan_of(f"runs_dir={runs_dir}", f"run='{kept['fingerprint']}'", f"export.dir={folder}", *more)[1], kept


@pytest.mark.slow
@pytest.mark.parametrize("which", ["lora none", "lora nf4"])
def test_merged_model_equals_the_unmerged_one_and_needs_no_peft(which, made, tmp_path):
    options, kept = options_of(made, which, tmp_path / "merged", "stage=export")
    export.export_model(options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]  # nothing half-written beside it
    plan = plan_of_record(kept)
    base = load_base(plan.model)
    adapter = made[1] / kept["fingerprint"] / kept["adapter"]["path"]
    unmerged = save_load.load_adapter(fork(base, False), adapter, plan)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before, wanted, got = base.model(ids).logits, unmerged(input_ids=ids).logits, plain(ids).logits
    assert (got - wanted).abs().max() < 1e-4 < (before - wanted).abs().max()
    note = json.loads((tmp_path / "merged" / save_load.ADAPTER_NOTE).read_text())
    assert note["fingerprint"] == kept["fingerprint"]
    assert note["template"] == kept["plan"]["data"]["template"]


def test_export_is_scored_beside_its_run_by_the_same_protocol(made, tmp_path):
    options, kept = options_of(made, "lora none", tmp_path / "merged", "stage=export")
    export.export_model(options)
    again, _ = options_of(made, "lora none", tmp_path / "merged", "stage=score")
    score_export(again)
    found = json.loads((made[1] / kept["fingerprint"] / "export-none.json").read_text())["scores"]
    assert found["before"] == kept["scores"]["before"]
    assert found["adapter"] == kept["scores"]["after"]
    assert found["export"]["loss"] == pytest.approx(found["adapter"]["loss"], abs=1e-4)
    other, _ = options_of(made, "lora nf4", tmp_path / "merged", "stage=score")
    with pytest.raises(ModelFault, match="is an export of run"):
        score_export(other)


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
    options, kept = options_of(made, "lora none", tmp_path / "small", "stage=score")
    score_export(options)
    found = json.loads((made[1] / kept["fingerprint"] / f"export-{kind}.json").read_text())["scores"]
    assert found["export"]["loss"] == pytest.approx(found["adapter"]["loss"], rel=0.1)


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(made, tmp_path):
    with pytest.raises(ModelFault, match="peft=prompt_tuning has no form without PEFT"):
        export.export_model(options_of(made, "prompt_tuning none", tmp_path / "merged", "stage=export")[0])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_and_missing_settings_are_refused(made, tmp_path):
    with pytest.raises(ConfigFault, match="exists and is not overwritten"):
        export.export_model(options_of(made, "lora none", tmp_path, "stage=export")[0])
    with pytest.raises(ConfigFault, match="stage=export needs run="):
        export.export_model(plan_of("stage=export")[1])
    with pytest.raises(ConfigFault, match="stage=score needs run="):
        score_export(plan_of("stage=score")[1])


def test_a_folder_that_is_no_export_is_not_scored(made, random_qwen2):
    with pytest.raises(ModelFault, match="is not an export of the harness"):
        score_export(options_of(made, "lora none", random_qwen2, "stage=score")[0])
