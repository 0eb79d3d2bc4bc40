"""Adapters from elsewhere, made by plain PEFT: scored beside our runs, against each other, exported."""

import json

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from harness.adapters.external import load_external
from harness.config.schema import Gguf
from harness.errors import ConfigFault, ModelFault
from harness.models.peft_adapters import find_adapter
from harness.stages.export import conversion, find_converter
from harness.stages.score import paired_difference
from tests.support.runs import command, loaded, overrides, records_of, write_rows


def plain_adapter(base, folder, seed=0, **changes):
    """An adapter that PEFT alone made, with noise in its weights in place of training."""
    torch.manual_seed(seed)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made_elsewhere(tmp_path_factory, random_qwen2):
    folder = tmp_path_factory.mktemp("elsewhere")
    rows = write_rows(folder / "rows", train_rows=8, others=6)
    return folder, rows, [plain_adapter(random_qwen2, folder / name, seed) for seed, name in enumerate("ab")]


@pytest.fixture(scope="module")
def scored(made_elsewhere, random_qwen2):
    """One run of ours, then both adapters scored by its protocol."""
    folder, rows, (one, other) = made_elsewhere
    words = overrides(random_qwen2, rows, folder / "runs")
    done = command(*words)
    assert done.code == 0, done.err
    both = command(*words, "stage=score", f"adapter_path=[{one},{other}]")
    assert both.code == 0, both.err
    return words, folder / "runs", both


def test_two_adapters_are_scored_by_the_protocol_of_our_run_and_recorded(scored, random_qwen2, made_elsewhere):
    _, runs, both = scored
    records = records_of(runs)  # each conforms to the schema
    theirs = [record for record in records.values() if "external" in record]
    [ours] = [record for record in records.values() if "external" not in record]
    assert len(theirs) == 2
    assert {record["method"] for record in theirs} == {"lora"}
    for record in theirs:
        assert record["status"] == "finished"
        assert record["scores"]["before"] == ours["scores"]["before"]
        assert record["plan"]["settings"]["r"] == 4
        assert record["parameters"]["trainable"] == record["external"]["numbers"] > 0
        assert str(made_elsewhere[0]) not in json.dumps(record["external"])
    assert theirs[0]["scores"]["after"]["loss"] != theirs[1]["scores"]["after"]["loss"]
    assert "exact_match: " in both.out
    assert "95 % interval over 6 rows" in both.out


def test_the_loss_is_that_of_plain_peft(scored, random_qwen2, made_elsewhere):
    from peft import PeftModel

    from harness.pipeline import steps
    from harness.pipeline.cache import ProcessCache
    from harness.scoring.losses import mean_completion_loss
    from tests.support.runs import plan_of

    words, runs, _ = scored
    plan, _ = plan_of(*words)
    rows = steps.tokenize(plan, ProcessCache(), loaded(random_qwen2)).scored["test"]
    for folder in made_elsewhere[2]:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(random_qwen2), folder)
        loss = mean_completion_loss(model, rows, pad_id=0, batch_size=1, plain=True)
        sha256 = find_adapter(str(folder)).sha256
        [record] = [each for each in records_of(runs).values() if each.get("external", {}).get("sha256") == sha256]
        assert record["scores"]["after"]["loss"] == pytest.approx(loss, abs=1e-4)


def test_they_stand_in_one_table_with_our_runs(scored):
    _, runs, _ = scored
    done = command(f"runs_dir={runs}", "stage=report")
    assert done.code == 0, done.err
    report = json.loads((runs / "report" / "report.json").read_text())
    assert len(report["groups"]) == 1
    methods = {each["method"] for each in report["groups"][0]["configurations"]}
    assert "lora" in methods
    assert len(methods) == 3  # ours, and each of theirs under its own name


def test_the_same_content_has_one_fingerprint_and_is_not_scored_again(scored, made_elsewhere, tmp_path):
    words, runs, _ = scored
    copy = tmp_path / "copied"
    copy.mkdir()
    for file in made_elsewhere[2][0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = set(records_of(runs))
    done = command(*words, "stage=score", f"adapter_path={copy}", "seed=7", "trainer.max_steps=9")
    assert done.code == 0, done.err
    assert set(records_of(runs)) == before
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    assert find_adapter(str(copy)).sha256 != find_adapter(str(made_elsewhere[2][0])).sha256


def test_what_is_no_adapter_is_refused_with_a_remedy(scored, made_elsewhere, random_qwen2, tmp_path):
    with pytest.raises(ModelFault, match="is not a folder; name one"):
        find_adapter(str(tmp_path / "none"))
    with pytest.raises(ModelFault, match="holds no adapter in PEFT's format"):
        find_adapter(str(random_qwen2))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (pickled / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelFault, match="is pickled and is not loaded"):
        find_adapter(str(pickled))
    words, _, _ = scored
    path = made_elsewhere[2][0]
    for more, message in (
        ([f"adapter_path={path}"], "is for stage=score, export, chat and serve"),
        ([f"adapter_path={path}", "stage=score", "run=abc"], "both name an adapter"),
        (["adapter_path=[]", "stage=score"], "is not a folder, a hub name"),
        ([f"adapter_path=[{path},{path}]", "stage=export"], "name one adapter"),
        ([f"adapter_path=[{path},{path}]", "stage=chat"], "talks to one adapter"),
        (["push.really=true"], "it belongs to stage=push"),
        (["export.gguf=f16", "export.quantization=nf4"], "is made of plain weights"),
    ):
        done = command(*words, *more)
        assert done.code != 0
        assert message in done.err


def test_an_adapter_that_does_not_fit_leaves_a_failed_record(scored, random_qwen2, made_elsewhere, tmp_path):
    words, runs, _ = scored
    folder = plain_adapter(random_qwen2, tmp_path / "wide")
    from safetensors.torch import load_file, save_file

    weights = {name: torch.zeros(weight.shape[0] + 1, *weight.shape[1:])
               for name, weight in load_file(folder / "adapter_model.safetensors").items()}  # fmt: skip
    save_file(weights, folder / "adapter_model.safetensors")
    done = command(*words, "stage=score", f"adapter_path={folder}")
    assert done.code != 0
    assert "does not fit the base model" in done.err
    [record] = [each for each in records_of(runs).values() if each["status"] == "failed"]
    assert record["external"]["name"].endswith("wide")
    run = f"run={record['fingerprint']}"
    assert command(f"runs_dir={runs}", "stage=generate", run, "prompt=a").code != 0


def test_prompts_of_others_keep_their_order_of_answers(random_qwen2, made_elsewhere, tmp_path):
    base = loaded(random_qwen2)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    get_peft_model(AutoModelForCausalLM.from_pretrained(random_qwen2), config).save_pretrained(tmp_path / "soft")
    adapter = find_adapter(str(tmp_path / "soft"))
    assert adapter.method == "prompt_tuning"
    model = load_external(base, adapter)
    words = overrides(random_qwen2, made_elsewhere[1], tmp_path / "runs")
    done = command(*words, "stage=score", f"adapter_path={tmp_path / 'soft'}")
    assert done.code == 0, done.err
    refused = command(*words, "stage=export", f"adapter_path={tmp_path / 'soft'}", f"export.dir={tmp_path / 'plain'}")
    assert "cannot be merged" in refused.err
    assert model.peft_config["default"].is_prompt_learning


def test_an_adapter_of_others_is_exported_merged_and_the_command_for_gguf_is_shown(scored, made_elsewhere, tmp_path):
    words, _, _ = scored
    path = f"adapter_path={made_elsewhere[2][0]}"
    done = command(*words, "stage=export", path, f"export.dir={tmp_path / 'plain'}", "export.gguf=f16")
    assert done.code == 0, done.err
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "plain") is not None
    assert "has not been scored" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    if find_converter(None) is None:
        assert f"llama.cpp/convert_hf_to_gguf.py {tmp_path / 'plain'}" in done.out
        assert "--outtype f16" in done.out


@pytest.mark.parametrize("kind", [kind for kind in Gguf if kind is not Gguf.none])
def test_each_type_is_passed_to_the_converter(kind, tmp_path):
    program, into = str(tmp_path / "convert_hf_to_gguf.py"), tmp_path / "x.gguf"
    words = conversion(program, tmp_path, kind, into)
    assert words[1:] == [program, str(tmp_path), "--outfile", str(into), "--outtype", kind.value]


def test_the_converter_writes_into_the_export_and_its_failure_leaves_none(scored, made_elsewhere, tmp_path):
    words, _, _ = scored
    path = f"adapter_path={made_elsewhere[2][0]}"
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("import sys, pathlib\npathlib.Path(sys.argv[3]).write_bytes(b'GGUF')\n")
    bad.write_text("import sys\nsys.exit('Model Foo is not supported')\n")
    for script, folder in ((good, tmp_path / "made"), (bad, tmp_path / "failed")):
        done = command(
            *words, "stage=export", path, f"export.dir={folder}", "export.gguf=q8_0", f"export.converter={script}"
        )
        if script is good:
            assert done.code == 0, done.err
            assert (folder / "model-q8_0.gguf").read_bytes() == b"GGUF"
        else:
            assert "Model Foo is not supported" in done.err
            assert not folder.exists()
    with pytest.raises(ConfigFault, match=r"export\.converter="):
        find_converter(str(tmp_path / "none.py"))


def test_a_paired_difference_has_the_interval_of_its_rows():
    mean, half = paired_difference([(0, 100), (0, 0), (100, 100), (0, 100)])
    assert mean == 50
    assert half == pytest.approx(1.96 * 57.735 / 2, rel=1e-3)
    assert paired_difference([(0, 1)])[1] == float("inf")
