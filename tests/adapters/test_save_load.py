"""A saved adapter, loaded by plain PEFT on a fresh base, is the trained model; ours refuses one of another plan."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from harness.adapters import save_load
from harness.config.schema import ModelSource
from harness.errors import ModelFault
from harness.models import base
from harness.record.files import partial_path
from tests.support.runs import CASES, logits_of, overrides, plan_of, prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def saved(random_qwen2, rows, tmp_path):
    """Trains, saves, and returns what was prepared and what was saved."""

    def make(*words):
        made = prepared(random_qwen2, rows, tmp_path / "runs", *words)
        made.train(tmp_path / "scratch")
        return made, save_load.save_adapter(made.write, tmp_path / "adapter", made.plan, made.model)

    return make


@pytest.mark.parametrize("case", [*CASES, "pissa_rslora", "diff_pruning", "gaussian_bias"])
def test_plain_peft_loads_what_was_trained(saved, random_qwen2, tmp_path, case):
    extra = {
        "pissa_rslora": ["lora.init_lora_weights=pissa", "lora.use_rslora=true"],
        "diff_pruning": ["peft=diff_pruning", "diff_pruning.target_sparsity=0.5"],
        "gaussian_bias": ["lora.init_lora_weights=gaussian", "lora.bias=all"],
    }
    made, _ = saved(*(CASES | extra)[case])
    test_rows = made.rows.splits["test"]
    trained = logits_of(made.model, test_rows)
    start = logits_of(made.base.model, test_rows)
    fresh = AutoModelForCausalLM.from_pretrained(random_qwen2, dtype=torch.float32)
    loaded = logits_of(PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")), test_rows)
    assert torch.allclose(trained, loaded, atol=2e-5), (trained - loaded).abs().max()
    assert not torch.allclose(trained, start, atol=1e-4)
    ours = save_load.load_adapter(base.fork(made.base, private_weights=True), tmp_path / "adapter", made.plan)
    assert torch.allclose(trained, logits_of(ours, test_rows), atol=2e-5)


@pytest.mark.slow
def test_the_base_is_unchanged_by_every_kind_of_method(saved):
    for words in (*(CASES[case] for case in ("full", "pissa", "partial")), ["lora.bias=all"], ["peft=bitfit"]):
        made, _ = saved(*words)
        fresh = base.load_base(made.plan.model)
        assert base.fingerprint_weights(made.base.model) == base.fingerprint_weights(fresh.model), words


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_converting_leaves_the_live_model_as_it_trained(saved, init):
    made, _ = saved(f"lora.init_lora_weights={init}", "lora.r=4", "lora.use_rslora=true")
    config = made.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.init_lora_weights) == (4, 32, init)


def test_pruned_adalora_is_counted_rank_by_rank(saved, tmp_path):
    words = ("peft=adalora", "trainer.max_steps=6", "adalora.init_r=6", "adalora.target_r=2")
    made, written = saved(*words)
    pattern = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["rank_pattern"]
    by_hand = 0
    for name, kept in pattern.items():
        layer = made.base.model.get_submodule(name.removesuffix(".lora_E"))
        by_hand += sum(kept) * (layer.in_features + layer.out_features + 1)
    assert sum(sum(kept) for kept in pattern.values()) <= 2 * len(pattern)
    assert written.trainable_final == by_hand == written.numbers
    assert by_hand < sum(weight.numel() for weight in made.trainable().values())


def test_methods_that_do_not_prune_have_no_second_count(saved):
    assert saved("peft=lora")[1].trainable_final is None


def test_a_folder_holds_the_adapter_and_its_plan_and_nothing_else(saved, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "of_an_older_run").write_text("x")
    killed = partial_path(tmp_path / "adapter", save_load.PARTIAL_TAG)
    killed.mkdir()
    (killed / "of_a_killed_save").write_text("x")
    made, written = saved("peft=lora")
    assert set(written.files) == {"adapter_config.json", "adapter_model.safetensors", "harness.json"}
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == set(written.files)
    note = json.loads((tmp_path / "adapter" / "harness.json").read_text())
    assert note["fingerprint"] == made.plan.fingerprint
    assert note["plan"]["data"]["template"] == "lesson"
    assert written.numbers == sum(weight.numel() for weight in made.trainable().values())
    assert not list(tmp_path.glob(".*.partial"))


def test_an_adapter_of_another_template_is_refused(saved, random_qwen2, rows, tmp_path):
    made, _ = saved("peft=lora")
    other, _ = plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), "data.template=alpaca")
    with pytest.raises(ModelFault, match=f"is of run {made.plan.fingerprint}, not of {other.fingerprint}"):
        save_load.load_adapter(base.fork(made.base, False), tmp_path / "adapter", other)


def test_a_missing_or_damaged_adapter_is_a_clear_fault(saved, tmp_path):
    made, _ = saved("peft=lora")
    folder, fork = tmp_path / "adapter", base.fork(made.base, False)
    with pytest.raises(ModelFault, match="has no adapter"):
        save_load.load_adapter(fork, tmp_path, made.plan)
    for content in ("{", "[]", "{}"):
        (folder / "harness.json").write_text(content)
        with pytest.raises(ModelFault, match="does not say which plan"):
            save_load.load_adapter(fork, folder, made.plan)
    shutil.rmtree(folder)
    with pytest.raises(ModelFault, match="rerun=true"):
        save_load.load_adapter(fork, folder, made.plan)


def test_an_adapter_of_another_version_of_peft_loads_if_what_is_unknown_is_unset(
    saved, random_qwen2, tmp_path, recwarn
):
    made, _ = saved()
    file = tmp_path / "adapter" / "adapter_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"of_another_version": None, "also": {}}))
    again = save_load.load_adapter(AutoModelForCausalLM.from_pretrained(random_qwen2), tmp_path / "adapter", made.plan)
    torch.testing.assert_close(
        logits_of(again, made.rows.splits["test"]), logits_of(made.model, made.rows.splits["test"])
    )
    assert not [each for each in recwarn if "Unexpected keyword" in str(each.message)]
    file.write_text(json.dumps(content | {"of_another_version": 3}))
    with pytest.raises(ModelFault, match="of_another_version=3 is unknown to the installed PEFT"):
        save_load.load_adapter(AutoModelForCausalLM.from_pretrained(random_qwen2), tmp_path / "adapter", made.plan)


def test_an_adapter_of_a_hub_model_names_the_hub_and_the_commit(saved, tmp_path):
    made, _ = saved()
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = replace(made.plan.model, source=ModelSource.hub, path="acme/tinylm", revision=commit)
    config = next(iter(made.model.peft_config.values()))
    config.base_model_name_or_path = f"/home/me/.cache/huggingface/hub/models--acme--tinylm/snapshots/{commit}"
    save_load.save_adapter(made.write, tmp_path / "adapter", replace(made.plan, model=model), made.model)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == ("acme/tinylm", commit)


def test_names_are_sorted_so_that_equal_runs_leave_equal_files(saved, tmp_path):
    saved()
    names = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert len(names) > 2
    assert names == sorted(names)
