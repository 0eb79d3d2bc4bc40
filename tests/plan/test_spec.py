"""The plan: what has an effect is in its fingerprint, what has none is not, and nothing changes it."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.config import schema
from harness.errors import ConfigFault
from harness.plan.effective import IDLE_SETTINGS
from harness.plan.read import read_config
from harness.plan.spec import Plan, digest, effective_settings, plan_from_dict
from tests.support.configs import CONF, composed_once, overridden

ROWS = [{"instruction": f"q{i}", "input": "", "output": f"a{i}", "target": f"a{i}"} for i in range(8)]


@pytest.fixture
def rows(tmp_path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture
def base(weightless, rows):
    """Makes a plan over tiny local inputs; overrides as keyword-like ``key=value`` texts of leaves."""

    def make(*overrides: str, peft: str = "lora") -> Plan:
        return read_config(configured(*overrides, peft=peft, model=weightless, data=rows))[0]

    return make


def configured(*overrides: str, peft: str, model: Path, data: Path):
    """The composed config with leaves changed; a whole composition per case would take minutes."""
    config = copy.deepcopy(composed_once())
    config.peft.method = peft
    splits = ("data.splits.train=null", "data.splits.validation=null", "data.splits.test=null")
    local = ("model.source=folder", f"model.path={model}", f"data.path={data}", "data.columns.target=target", *splits)
    for override in (*local, "scoring.forgetting=null", *overrides):
        key, _, value = override.partition("=")
        OmegaConf.update(config, key, OmegaConf.create(f"v: {value}").v, force_add=True)
    return config


# --- what the fingerprint depends on ---------------------------------------------------------------------


def test_unused_sheet_leaves_fingerprint_unchanged(base):
    assert base("lora.r=4", peft="ia3").fingerprint == base("lora.r=16", peft="ia3").fingerprint
    assert base("lora.r=4").fingerprint != base("lora.r=16").fingerprint


EFFECTIVE = [
    "seed=1",
    "trainer.objective=lesson",
    "trainer.epochs=3",
    "trainer.max_steps=7",
    "trainer.batch_size=2",
    "trainer.gradient_accumulation_steps=2",
    "trainer.learning_rate=0.007",
    "trainer.weight_decay=0.1",
    "trainer.schedule=linear",
    "trainer.warmup_share=0.2",
    "trainer.max_grad_norm=0.5",
    "trainer.gradient_checkpointing=true",
    "trainer.evaluations=2",
    "trainer.keep_best=false",
    "trainer.deterministic=true",
    "trainer.early_stopping.patience=2",
    "trainer.neftune_alpha=5",
    "data.columns.weight=output",
    "data.class_weights={output: 2}",
    "trainer.kernels=plain",
    "data.format=messages",
    "data.split_seed=1",
    "data.fractions.validation=0.2",
    "data.fractions.test=0.2",
    "data.limits.train=3",
    "data.limits.validation=1",
    "data.limits.test=1",
    "data.columns.instruction=output",
    "data.instruction=Answer.",
    "data.group_by_prompt=false",
    "data.columns.input=null",
    "data.columns.output=instruction",
    "data.columns.target=output",
    "data.columns.keep=[output]",
    "data.template=alpaca",
    "data.max_tokens=64",
    "data.truncate=true",
    "data.on_bad_row=skip",
    "data.metrics=[bleu]",
    "data.max_new_tokens=5",
    "scoring.split=validation",
    "scoring.metrics=[bleu]",
    "scoring.tokenize=char",
    "scoring.generation.max_new_tokens=5",
    "scoring.generation.do_sample=true",
    "scoring.forgetting=general/heldout.jsonl",
    "model.dtype=bfloat16",
    "model.quantization=nf4",
    "model.prune=0.5",
    "model.device=mps",
    "model.attn_implementation=eager",
    "lora.r=3",
    "lora.lora_alpha=3",
    "lora.lora_dropout=0.1",
    "lora.target_modules=[q_proj]",
    "lora.exclude_modules=[q_proj]",
    "lora.bias=all",
    "lora.use_rslora=true",
    "lora.use_dora=true",
    "lora.init_lora_weights=pissa",
    "lora.modules_to_save=[lm_head]",
    "lora.learning_rate=0.1",
    "lora.rank_pattern={q_proj: 2}",
    "lora.alpha_pattern={q_proj: 2}",
]


@pytest.mark.parametrize("override", EFFECTIVE)
def test_setting_with_an_effect_changes_the_fingerprint(base, override):
    extra = ["data.columns.messages=m"] if "messages" in override else []
    assert base(override, *extra).fingerprint != base(*extra).fingerprint


def test_settings_of_dpo_count_with_its_objective_alone(base):
    pairs = ("data.format=preference", "data.columns.rejected=output", "data.group_by_prompt=false")
    pairs = (*pairs, "trainer.objective=dpo", "data.columns.output=instruction")
    assert base("trainer.dpo.beta=0.5").fingerprint == base().fingerprint
    assert base(*pairs, "trainer.dpo.beta=0.5").fingerprint != base(*pairs).fingerprint


def test_every_trainer_setting_is_in_one_of_the_lists():
    listed = {key.partition("=")[0] for key in (*EFFECTIVE, *IDLE)} | {
        "trainer.teacher",
        "trainer.parallel",
        "trainer.early_stopping",
        "trainer.continue_from",
        "trainer.dpo",
    }  # test_distill, test_parallel, test_continuation, below
    assert {f"trainer.{name}" for name in vars(composed_once().trainer)["_content"]} <= listed


@pytest.mark.parametrize("method", schema.SHEETS)
def test_every_setting_of_the_used_sheet_changes_the_fingerprint(base, method):
    """By replacing each value in the plan: whether the method accepts the value is not the question here."""
    made = base(*(["data.template=lesson"]), peft=method).as_dict()
    usual = digest(effective_settings(made))
    for name in made["settings"]:
        changed = copy.deepcopy(made)
        changed["settings"][name] = "something else"
        if (method, name) in IDLE_SETTINGS and IDLE_SETTINGS[method, name](made["settings"]):
            assert digest(effective_settings(changed)) == usual, name
            continue
        assert digest(effective_settings(changed)) != usual, name


IDLE = [
    *("trainer.threads=1", "trainer.checkpoint_minutes=1", "trainer.checkpoint_steps=7", "trainer.on_oom=halve"),
    "trainer.log_every=3",
    *("model.config_only={model_type: llama}", "scoring.generation.top_p=0.5"),
]
IDLE += ["scoring.generation.temperature=0.3", "scoring.forgetting_limit=3", "runs_dir=/elsewhere/runs", "rerun=true"]
IDLE += [
    "stage=plan",
    "tracker.name=tensorboard",
    "tracker.project=p",
    "sweep.name=s",
    "prompt=p",
    "input=i",
    "run=abc",
    "trainer.distill_temperature=3.0",
    "trainer.distill_weight=0.1",
    "model.quantization=none",
    "model.prune=0.0",
    "data.train_on=all",  # rows of instructions have one turn
]


@pytest.mark.parametrize("override", IDLE)
def test_setting_without_effect_leaves_the_fingerprint(base, override):
    assert base(override).fingerprint == base().fingerprint


def test_epochs_are_idle_under_max_steps(base):
    steps = "trainer.max_steps=5"
    assert base("trainer.epochs=1", steps).fingerprint == base("trainer.epochs=2", steps).fingerprint


def test_the_turns_that_are_trained_count_for_conversations(base):
    chats = ("data.format=messages", "data.columns.messages=messages")
    assert base(*chats).fingerprint != base(*chats, "data.train_on=all").fingerprint


def test_records_from_before_a_setting_of_the_data_keep_their_fingerprint(base):
    kept = base().as_dict()
    for key in ("instruction", "train_on", "group_by_prompt", "tokenize"):
        del kept["data"][key]
    assert plan_from_dict(kept).fingerprint == base().fingerprint == digest(effective_settings(kept))


def test_what_the_data_suggests_for_scoring_counts_once(base):
    suggested, given = base("data.max_new_tokens=5"), base("scoring.generation.max_new_tokens=5")
    assert suggested.fingerprint == given.fingerprint
    assert base("scoring.metrics=[bleu]").fingerprint == base("data.metrics=[bleu]").fingerprint
    assert base("scoring.tokenize=char").fingerprint == base("data.tokenize=char").fingerprint


def test_sampling_settings_count_when_sampling(base):
    sample = "scoring.generation.do_sample=true"
    assert base(sample, "scoring.generation.top_p=0.5").fingerprint != base(sample).fingerprint


def test_protocol_is_shared_by_methods_but_not_by_templates(base):
    assert base().protocol == base(peft="ia3").protocol == base("seed=5", "trainer.epochs=1").protocol
    assert base().protocol != base("data.template=alpaca").protocol
    sample = "scoring.generation.do_sample=true"
    assert base(sample).protocol != base(sample, "seed=5").protocol


# --- learning rate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "ia3", "full"])
def test_learning_rate_is_the_rules_unless_the_sheet_or_the_trainer_has_one(base, method):
    assert base(peft=method).learning_rate > 0
    assert base(f"{method}.learning_rate=0.125", peft=method).learning_rate == 0.125
    assert base("trainer.learning_rate=0.25", peft=method).learning_rate == 0.25
    assert "learning_rate" not in base(peft=method).settings


def test_same_learning_rate_from_either_place_is_one_experiment(base):
    own = base().learning_rate
    assert base(f"trainer.learning_rate={own}").fingerprint == base().fingerprint
    assert base("lora.learning_rate=0.25").fingerprint == base("trainer.learning_rate=0.25").fingerprint


# --- constancy and round trips ---------------------------------------------------------------------------


def test_nothing_in_a_plan_can_be_changed(base):
    made = base()
    for node, name in ((made, "seed"), (made.trainer, "epochs"), (made.data.limits, "train"), (made.model, "path")):
        with pytest.raises(AttributeError):
            setattr(node, name, 1)
    for mapping in (made.settings, made.inputs):
        with pytest.raises(TypeError):
            mapping["r"] = 1


@pytest.mark.parametrize("method", schema.SHEETS)
def test_record_gives_the_same_plan_back(base, method):
    made = base("trainer.max_steps=5", peft=method)
    kept = json.loads(json.dumps(made.as_dict()))
    again = plan_from_dict(kept)
    assert again.fingerprint == made.fingerprint
    assert again == made
    with pytest.raises(AttributeError):
        again.trainer.epochs = 1


def test_plan_survives_pickling_and_copying(base):
    made = base()
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert other == made
        assert other.fingerprint == made.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept.pop("trainer"),
        lambda kept: kept.pop("settings"),
        lambda kept: kept["trainer"].update(gone=1),
        lambda kept: kept["trainer"].update(epochs="many"),
        lambda kept: kept["trainer"].update(kernels="gone"),
        lambda kept: kept.update(model=None),
        lambda kept: kept.update(settings=None),
        lambda kept: kept.update(model=[1]),
    ],
)
def test_plan_of_another_version_is_refused_readably(base, damage):
    kept = base().as_dict()
    damage(kept)
    with pytest.raises(ConfigFault, match=r"another version of the harness wrote.*run its command again"):
        plan_from_dict(kept)


# --- what is refused ---------------------------------------------------------------------------------------


def refusal(*overrides: str, onto: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigFault) as caught:
        read_config(overridden(*overrides, onto=onto))
    return str(caught.value)


@pytest.mark.parametrize("stray", ["++stray=1", "+lora.zz=1", "++data.limits.trian=3"])
def test_stray_key_is_rejected(stray):
    assert "there is no setting" in refusal(stray)


def test_every_missing_value_is_named_at_once():
    found = refusal(onto=("data=alpaca", "model=hub"))
    assert found.splitlines() == [
        "model.path has no value; set it on the command line: model.path=...",
        "data.path has no value; set it on the command line: data.path=...",
    ]


def test_deleted_group_is_named():
    assert refusal("~data").startswith("data has no value")
    assert refusal("~lora").startswith("lora has no value")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.path=${oops}", "model.path refers to 'oops', which is not a setting"),
        ("seed=${seed}", "seed refers to itself"),
        ("model.path=${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE' not found"),
    ],
)
def test_broken_interpolation_is_explained(override, said):
    assert said in refusal(override)


# --- lightness ---------------------------------------------------------------------------------------------

HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "wandb")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--cfg", "job"], 0), (["lora.rr=4"], 2), (["lora.r=0"], 2), (["data=alpaca"], 2)],
)
def test_help_and_errors_import_nothing_heavy(arguments, code, tmp_path):
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY} if m in sys.modules]))\n"
        "from harness.__main__ import main\n"
        "main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CONF.parent)},
        timeout=120,
    )
    assert found.returncode == code, found.stderr
    assert "HEAVY []" in found.stdout
    assert list(tmp_path.iterdir()) == []
