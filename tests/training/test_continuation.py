"""Training that begins with finished weights: of our runs, of plain PEFT; what is refused; resuming."""

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.adapters.save_load import adapter_writer
from harness.errors import ConfigFault, HarnessError, ModelFault
from harness.methods.context import SEEDS
from harness.models.peft_adapters import find_adapter
from harness.pipeline import steps, tune
from harness.pipeline.cache import ProcessCache
from harness.plan.continuation import NOT_WHOLE, Source, base_faults, find_source
from harness.plan.read import read_config
from harness.training import checkpoints
from tests.support.configs import compose
from tests.support.method_cases import SHEETS, parts
from tests.support.runs import (
    Cut,
    Prepared,
    command,
    cut_at,
    disturbed,
    loaded,
    logits_of,
    overrides,
    plan_of,
    records_of,
    write_rows,
)

QUICK = ("lora", "ia3", "prompt_tuning", "full", "bitfit")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def words(random_qwen2, rows, tmp_path):
    return overrides(random_qwen2, rows, tmp_path / "runs")


def ready(plan, base, source=None):
    audited = steps.tokenize(plan, ProcessCache(), base)
    attached = tune.attach(plan, base, audited, source)
    return Prepared(plan, base, audited, attached, lambda folder: None)


def peft_adapter(model_path, folder, **settings):
    """An adapter that plain PEFT made, with weights that have an effect."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_path)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **settings})
    config.task_type = "CAUSAL_LM"
    model = disturbed(get_peft_model(base, config))
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in SHEETS]
)
def test_weights_of_a_method_come_back_or_it_is_refused(random_qwen2, words, tmp_path, case):
    plan, _ = plan_of(*words)
    method, settings, rate = parts(case)
    plan = replace(plan, method=method, settings=MappingProxyType(settings), learning_rate=rate)
    base = loaded(random_qwen2)
    first = ready(plan, base)
    write = adapter_writer(first.model, tmp_path / "scratch")
    disturbed(first.model)
    first.model.save_pretrained(str(tmp_path / "adapter")) if write is None else write(tmp_path / "adapter")
    source = Source(find_adapter(str(tmp_path / "adapter")), None)
    projecting = method == "prefix_tuning" and settings["prefix_projection"]
    if method in NOT_WHOLE or projecting:
        return  # refused by the plan, below
    other = replace(plan, seed=1)
    if any(name in settings and settings[name] is None for name in SEEDS):  # its frozen numbers are drawn by the seed
        with pytest.raises(ModelFault, match=r"was trained with \w+=0, not 1; use the same settings"):
            ready(other, base, source)
        other = plan
    second = ready(other, base, source)
    assert all(torch.equal(weight, second.trainable()[name]) for name, weight in first.trainable().items())
    some = first.rows.splits["test"][:3]
    assert torch.equal(logits_of(second.model, some), logits_of(first.model, some))


def test_an_adapter_of_plain_peft_is_where_training_begins(random_qwen2, words, tmp_path):
    theirs = peft_adapter(random_qwen2, tmp_path / "peft")
    own = ("lora.r=4", "lora.lora_alpha=8", "lora.target_modules=[q_proj,v_proj]")
    begun = f"trainer.continue_from={tmp_path / 'peft'}"
    plan, options = read_config(compose(*words, *own, begun))
    made = ready(plan, loaded(random_qwen2), find_source(plan.trainer.continue_from, options.runs_dir))
    some = made.rows.splits["test"][:3]
    assert torch.allclose(logits_of(made.model, some), logits_of(theirs, some), atol=1e-6)
    done = command(*words, *own, begun)
    assert done.code == 0, done.err
    [record] = records_of(tmp_path / "runs").values()
    assert record["inferred"]["continue_from"]["adapter"].endswith("/peft")
    assert any("with a fresh optimizer and schedule" in note for note in record["notes"])


def test_a_finished_run_goes_on_as_a_plan_of_its_own(words, tmp_path):
    runs = tmp_path / "runs"
    assert command(*words).code == 0
    [first] = records_of(runs)
    begun = f"trainer.continue_from={first}"
    done = command(*words, begun)
    assert done.code == 0, done.err
    records = records_of(runs)
    [second] = records.keys() - {first}
    kept = records[second]["inferred"]["continue_from"]
    assert (kept["run"], kept["optimizer_steps"]) == (first, 2)
    assert f"begins with the weights of run {first}" in done.err
    assert "not equal to a longer run" in done.err
    # where the weights are does not matter, what they are does
    by_folder, _ = read_config(compose(*words, f"trainer.continue_from={runs / first / 'adapter'}"))
    assert by_folder.fingerprint == second
    third, _ = read_config(compose(*words, f"trainer.continue_from={second}"))
    assert len({first, second, third.fingerprint}) == 3
    assert third.protocol == by_folder.protocol == read_config(compose(*words))[0].protocol
    shown = command("stage=report", f"runs_dir={runs}")
    assert shown.code == 0, shown.err
    page = (runs / "report" / "report.md").read_text().replace("\\", "")
    assert f"began with finished weights (trainer.continue_from): row 2 with run {first} (2 steps" in page
    file = runs / first / "adapter" / "adapter_model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)
    with pytest.raises(HarnessError, match="is damaged"):
        read_config(compose(*words, begun))


def test_a_run_that_is_cut_resumes_bit_for_bit(random_qwen2, words, tmp_path):
    peft_adapter(random_qwen2, tmp_path / "peft")
    own = ("lora.r=4", "lora.lora_alpha=8", "lora.target_modules=[q_proj,v_proj]", "lora.lora_dropout=0.1")
    more = ("trainer.max_steps=6", "trainer.evaluations=3", f"trainer.continue_from={tmp_path / 'peft'}")
    plan, options = read_config(compose(*words, *own, *more))
    base, source = loaded(random_qwen2), find_source(plan.trainer.continue_from, options.runs_dir)
    settings = checkpoints.CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=2)

    whole = ready(plan, base, source)
    expected = whole.train(tmp_path / "a")
    with pytest.raises(Cut):
        ready(plan, base, source).train(tmp_path / "b", settings, log=cut_at(5))
    resumed, notes = ready(plan, base, source), []
    done = resumed.train(tmp_path / "c", settings, note=notes.append)
    assert notes == ["resuming from the checkpoint at optimizer step 4 of 6"]
    assert (done.curve, done.validation) == (expected.curve, expected.validation)
    assert all(torch.equal(weight, resumed.trainable()[name]) for name, weight in whole.trainable().items())


@pytest.mark.parametrize(
    ("own", "said", "remedy"),
    [
        (("peft=ia3",), "was trained with peft=lora, not with peft=ia3", "set peft=lora"),
        (("lora.r=8", "lora.lora_alpha=9"), "was trained with lora.r=4, not with lora.r=8", "set lora.lora_alpha=8"),
        (("lora.r=4", "lora.lora_alpha=8", "lora.use_rslora=true"), "lora.use_rslora=false", "lora.use_rslora=false"),
        (
            ("lora.r=4", "lora.lora_alpha=8", "lora.init_lora_weights=pissa"),
            "lora.init_lora_weights=pissa would have no effect",
            "set lora.init_lora_weights=true",
        ),
        (
            ("lora.r=4", "lora.lora_alpha=8", "lora.target_modules=[q_proj]"),
            'lora.target_modules=["q_proj", "v_proj"]',
            "not with lora.target_modules",
        ),
    ],
)
def test_another_method_or_shape_is_refused_by_the_plan(random_qwen2, words, tmp_path, own, said, remedy):
    peft_adapter(random_qwen2, tmp_path / "peft")
    with pytest.raises(ConfigFault) as caught:
        read_config(compose(*words, *own, f"trainer.continue_from={tmp_path / 'peft'}"))
    assert said in str(caught.value)
    assert remedy in str(caught.value)
    assert "trainer.continue_from=" in str(caught.value)


def test_a_shape_that_only_the_model_tells_is_refused_before_training(random_qwen2, words, tmp_path):
    peft_adapter(random_qwen2, tmp_path / "peft", target_modules=["q_proj"])
    plan, _ = read_config(compose(*words, "lora.r=4", "lora.lora_alpha=8"))
    source = Source(find_adapter(str(tmp_path / "peft")), None)
    with pytest.raises(ModelFault, match=r"trained with target_modules=.*q_proj.*; use the same settings"):
        ready(plan, loaded(random_qwen2), source)


def test_weights_that_a_file_lacks_or_cuts_are_refused(random_qwen2, words, tmp_path):
    peft_adapter(random_qwen2, tmp_path / "peft")
    own = ("lora.r=4", "lora.lora_alpha=8", "lora.target_modules=[q_proj,v_proj]")
    plan, _ = read_config(compose(*words, *own))
    file = tmp_path / "peft" / "adapter_model.safetensors"
    whole = load_file(file)
    first = sorted(whole)[0]
    save_file({name: weight for name, weight in whole.items() if name != first}, file)
    with pytest.raises(ModelFault, match=r"does not hold .*lora_A"):
        ready(plan, loaded(random_qwen2), Source(find_adapter(str(tmp_path / "peft")), None))
    save_file({**whole, first: whole[first][:2].contiguous()}, file)
    with pytest.raises(ModelFault, match="has another shape"):
        ready(plan, loaded(random_qwen2), Source(find_adapter(str(tmp_path / "peft")), None))


def test_another_base_is_refused(random_qwen2, words, tmp_path):
    assert command(*words).code == 0
    [first] = records_of(tmp_path / "runs")
    with pytest.raises(ConfigFault, match=r"was trained on another base \(random\), not on model=random; choose"):
        read_config(compose(*words, f"trainer.continue_from={first}", "model.prune=0.5"))
    peft_adapter(random_qwen2, tmp_path / "peft")
    file = tmp_path / "peft" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "org/other"}))

    source = Source(find_adapter(str(tmp_path / "peft")), None)
    plan, _ = plan_of(*words)
    model = replace(plan.model, path="HuggingFaceTB/SmolLM2-135M")
    [fault] = base_faults("trainer.continue_from=x", source, model, None)
    assert "not on model.path=HuggingFaceTB/SmolLM2-135M" in fault
    assert "set model.path=org/other" in fault


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/such/folder", "is not a folder"),
        ("", "trainer.continue_from is empty"),
        ("0123456789ab", "nor a folder"),
    ],
)
def test_what_is_not_there_is_named(words, name, said):
    with pytest.raises(HarnessError, match=said):
        read_config(compose(*words, f"trainer.continue_from='{name}'"))


@pytest.mark.parametrize("method", sorted(NOT_WHOLE))
def test_methods_whose_files_do_not_hold_what_trains_are_refused(words, tmp_path, method):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": method.upper()}))
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigFault, match="so that no training can begin with it"):
        read_config(compose(*words, f"peft={method}", f"trainer.continue_from={folder}"))
