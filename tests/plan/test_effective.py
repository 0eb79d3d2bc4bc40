"""Plans that would do the same have one fingerprint; plans that would not, several."""

import copy
import shutil
from pathlib import Path

import pytest

from harness.plan import resolve
from harness.plan.spec import digest, effective_settings, plan_from_dict
from harness.runtime.accelerator import Accelerator
from harness.shipped import shipped_folder
from tests.support.runs import plan_of

MEDICINE = shipped_folder("data") / "medicine"


def prints(*cells: str) -> int:
    """How many experiments these cells are; overrides of one cell are separated by blanks."""
    return len({plan_of(*cell.split())[0].fingerprint for cell in cells})


@pytest.mark.parametrize(
    "cells",
    [
        ("data.path=medicine", f"data.path={MEDICINE}", f"data.path={MEDICINE}/../medicine/"),
        ("model.path=tiny", f"model.path={shipped_folder('data') / 'tiny'}"),
        ("model.name=tiny", "model.name=other"),
        ("data.name=medicine", "data.name=other"),
        ("model.revision=null", "model.revision=main"),
        ("data.revision=null", "data.revision=main"),
        ("data.subset=null", "data.subset=x"),
        ("lora.target_modules=[q_proj,v_proj]", "lora.target_modules=[v_proj,q_proj]",
         "lora.target_modules=[v_proj,q_proj,v_proj]"),
        ("lora.target_modules=[q_proj] lora.layers_to_transform=[0,1]",
         "lora.target_modules=[q_proj] lora.layers_to_transform=[1,0]"),
        ("+lora.rank_pattern={q_proj:2,v_proj:4}", "+lora.rank_pattern={v_proj:4,q_proj:2}"),
        ("lora.lora_dropout=0.0", "lora.lora_dropout=-0.0"),
        ("scoring.metrics=[bleu,rouge_l]", "scoring.metrics=[rouge_l,bleu]"),
        ("scoring.generation.batch_size=8", "scoring.generation.batch_size=16"),
        ("scoring.loss_batch_size=8", "scoring.loss_batch_size=16"),
        ("model.attn_implementation=null", "model.attn_implementation=sdpa"),
        ("data.fractions.test=0.1", "data.fractions.test=0.3"),  # the file is named
        ("peft=vera vera.projection_prng_key=null", "peft=vera vera.projection_prng_key=0"),
        ("peft=p_tuning p_tuning.encoder_num_layers=1", "peft=p_tuning p_tuning.encoder_num_layers=2"),
        ("scoring.metrics=[] scoring.generation.max_new_tokens=4",
         "scoring.metrics=[] scoring.generation.max_new_tokens=8"),
    ],
)  # fmt: skip
def test_what_has_no_effect_makes_no_second_run(cells):
    assert prints(*cells) == 1


@pytest.mark.parametrize(
    "cells",
    [
        ("scoring.generation.do_sample=true scoring.generation.batch_size=8",
         "scoring.generation.do_sample=true scoring.generation.batch_size=16"),
        ("model.dtype=bfloat16 scoring.generation.batch_size=8",
         "model.dtype=bfloat16 scoring.generation.batch_size=16"),
        (r"+lora.rank_pattern={.*q_proj:2,.*_proj:4}", r"+lora.rank_pattern={.*_proj:4,.*q_proj:2}"),
        ("+lora.rank_pattern={proj.q:2,q:4}", "+lora.rank_pattern={q:4,proj.q:2}"),
        ("model.attn_implementation=null", "model.attn_implementation=eager"),
        ("peft=vera vera.projection_prng_key=0", "peft=vera vera.projection_prng_key=1"),
        ("peft=p_tuning p_tuning.encoder_reparameterization_type=LSTM p_tuning.encoder_num_layers=1",
         "peft=p_tuning p_tuning.encoder_reparameterization_type=LSTM p_tuning.encoder_num_layers=2"),
    ],
)  # fmt: skip
def test_what_has_an_effect_does(cells):
    assert prints(*cells) == len(cells)


def test_one_folder_of_rows_is_one_data_set_wherever_it_is(tmp_path):
    shutil.copytree(MEDICINE, tmp_path / "copy")
    assert prints("seed=0", f"data.path={tmp_path / 'copy'}") == 1
    with (tmp_path / "copy" / "test.jsonl").open("a") as file:
        file.write((tmp_path / "copy" / "test.jsonl").read_text().splitlines()[0] + "\n")
    plan_of.cache_clear()
    assert prints("seed=0", f"data.path={tmp_path / 'copy'}") == 2


@pytest.mark.parametrize(
    ("found", "device", "dtype"),
    [
        (Accelerator("cpu"), "cpu", "float32"),
        (Accelerator("cuda", bfloat16=True), "cuda", "bfloat16"),
        (Accelerator("cuda", bfloat16=False), "cuda", "float16"),
        (None, "auto", "auto"),
    ],
)
def test_auto_is_the_value_that_it_means_here(found, device, dtype, monkeypatch):
    monkeypatch.setattr(resolve, "accelerator", lambda: found)
    plan_of.cache_clear()
    plan = plan_of("seed=0")[0]
    assert (plan.model.device, plan.model.dtype.value) == (device, dtype)
    if found:
        assert prints("seed=0", f"model.device={device}", f"model.dtype={dtype}") == 1
        assert plan_of("model.device=cpu")[0].model.dtype.value == "float32"
    plan_of.cache_clear()


@pytest.mark.parametrize(("kind", "usual"), [("llama", "sdpa"), ("gemma3_text", "sdpa"), ("nothing", None)])
def test_usual_attention_is_read_from_the_architectures_source(kind, usual):
    assert resolve.attention_of(kind) == usual


def test_a_plan_of_earlier_rules_keeps_its_fingerprint():
    kept = plan_of("seed=0")[0].as_dict()
    again = plan_from_dict(kept, "0123456789ab")
    assert again.fingerprint == copy.deepcopy(again).fingerprint == "0123456789ab"
    assert plan_from_dict(kept, plan_of("seed=0")[0].fingerprint).known_as is None


def test_negative_zero_is_zero_everywhere():
    assert digest({"a": [-0.0, {"b": -0.0}]}) == digest({"a": [0.0, {"b": 0.0}]})


def test_records_of_other_versions_without_a_switch_can_still_be_hashed():
    kept = plan_of("peft=oft")[0].as_dict()
    del kept["settings"]["coft"]
    assert effective_settings(kept)["settings"]["eps"]


def test_a_hub_model_is_planned_at_its_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "hub" / "models--acme--tinylm"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _silent)
    plan_of.cache_clear()
    first, main, exact = (
        plan_of("trainer.learning_rate=0.1", "model=hub", "model.path=acme/tinylm", f"model.revision={revision}")[0]
        for revision in ("null", "main", commit)
    )
    assert first.model.revision == main.model.revision == commit
    assert first.fingerprint == main.fingerprint == exact.fingerprint
    (place / "refs" / "main").write_text(commit[::-1])
    plan_of.cache_clear()
    assert (
        plan_of("trainer.learning_rate=0.1", "model=hub", "model.path=acme/tinylm")[0].fingerprint != first.fingerprint
    )
    plan_of.cache_clear()


def test_a_data_set_on_the_hub_is_planned_at_the_commit_of_its_copy(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    Path(tmp_path / "acme___my_rows" / "default" / "0.0.0" / commit).mkdir(parents=True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", _silent)
    plan_of.cache_clear()
    words = ("data=alpaca", "data.path=acme/MyRows")
    columns = ("data.columns.instruction=a", "data.columns.input=null", "data.columns.output=b")
    assert plan_of(*words, *columns)[0].data.revision == commit
    plan_of.cache_clear()


def _silent(*args, **kwargs):
    raise ConnectionError("no route to host")
