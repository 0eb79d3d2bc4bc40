"""Every guard fires, and says which key, which value, and what to do."""

import copy

import pytest
from omegaconf import OmegaConf

from harness.config import schema
from harness.plan.checks.config import config_faults
from tests.support.configs import composed_once


def typed(*changes: str) -> schema.Config:
    """The default configuration with leaves changed, as dataclasses; values are YAML."""
    config = copy.deepcopy(composed_once())
    for change in changes:
        key, _, value = change.partition("=")
        OmegaConf.update(config, key, OmegaConf.create(f"v: {value}").v, force_add=True)
    return OmegaConf.to_object(config)


def faults_of(*changes: str) -> list[str]:
    return config_faults(typed(*changes))


def test_default_configuration_of_every_method_has_no_fault():
    for method in schema.SHEETS:
        assert faults_of(f"peft.method={method}") == []


DPO = ("trainer.objective=dpo", "data.format=preference", "data.columns.rejected=worse", "data.group_by_prompt=false")

# Changes; the key and value that the message must begin with; a word of the remedy.
GUARDS = [
    (["peft.method=loar"], "peft.method=loar", "choose one of"),
    (["peft.method=cpt", "trainer.on_oom=halve"], "trainer.on_oom=halve would change the result of peft=cpt", "=fail"),
    (["trainer.objective=lesson", "trainer.on_oom=halve"], "trainer.on_oom=halve would change", "set trainer.on_oom"),
    (["sweep.max_hours=0"], "sweep.max_hours=0.0", "above 0"),
    (["sweep.pause_after=0"], "sweep.pause_after=0", "at least 1"),
    (["sweep.halving.keep=1"], "sweep.halving.keep=1.0", "below 1"),
    (["sweep.halving.first=0"], "sweep.halving.first=0.0", "above 0"),
    (["sweep.halving.margin=-0.1"], "sweep.halving.margin=-0.1", "at least 0"),
    (["sweep.prune=halving", "trainer.evaluations=1"], "sweep.prune=halving judges", "set trainer.evaluations=8"),
    (["seed=-1"], "seed=-1", "at least 0"),
    (["seed=4294967296"], "seed=4294967296", "at most 4294967295"),
    (["model.path=null"], "model.path is empty", "model.source=folder needs it"),
    (["model.source=package", "model.packages=[]"], "model.packages is empty", "needs the distributions"),
    (["model.trust_remote_code=true"], "model.trust_remote_code=true", "set it to false"),
    (["data.path=''"], "data.path is empty", "e.g. data.path="),
    (["data.fractions.validation=1.0"], "data.fractions.validation=1.0", "below 1"),
    (["data.fractions.test=-0.5"], "data.fractions.test=-0.5", "below 1"),
    (["data.fractions={validation: 0.5, test: 0.5}"], "data.fractions.validation + data.fractions.test", "lower them"),
    (["data.limits.train=0"], "data.limits.train=0", "at least 1"),
    (["data.max_tokens=3"], "data.max_tokens=3", "at least 4"),
    (["data.columns.output=null"], "data.columns.output=null", "name the column"),
    (["data.format=messages"], "data.columns.messages=null", "name the column"),
    (["trainer.epochs=0"], "trainer.epochs=0.0", "above 0"),
    (["trainer.max_steps=0"], "trainer.max_steps=0", "at least 1"),
    (["trainer.batch_size=0"], "trainer.batch_size=0", "at least 1"),
    (["trainer.gradient_accumulation_steps=0"], "trainer.gradient_accumulation_steps=0", "at least 1"),
    (["trainer.learning_rate=0"], "trainer.learning_rate=0.0", "above 0"),
    (["trainer.weight_decay=-1"], "trainer.weight_decay=-1.0", "at least 0"),
    (["trainer.warmup_share=1"], "trainer.warmup_share=1.0", "below 1"),
    (["trainer.max_grad_norm=0"], "trainer.max_grad_norm=0.0", "above 0"),
    (["trainer.evaluations=-1", "trainer.keep_best=false"], "trainer.evaluations=-1", "at least 0"),
    (["trainer.evaluations=0"], "trainer.keep_best=true", "set trainer.keep_best=false"),
    (["trainer.threads=0"], "trainer.threads=0", "at least 1"),
    (["trainer.objective=dpo"], "trainer.objective=dpo needs pairs of answers", "set data=preference"),
    (["trainer.dpo.beta=0"], "trainer.dpo.beta=0.0", "above 0"),
    (["trainer.dpo.label_smoothing=0.5"], "trainer.dpo.label_smoothing=0.5", "below 0.5"),
    ([*DPO, "peft.method=adalora"], "trainer.objective=dpo has a loss of pairs alone", "choose another method"),
    ([*DPO, "peft.method=cpt"], "trainer.objective=dpo has a loss of pairs alone", "choose another method"),
    ([*DPO, "data.columns.weight=w"], "data.columns.weight=w cannot weigh trainer.objective=dpo", "leave the weights"),
    (["trainer.neftune_alpha=0"], "trainer.neftune_alpha=0.0", "above 0"),
    (
        ["data.columns.weight=w", "peft.method=cpt"],
        "data.columns.weight=w cannot weigh the loss that peft=cpt brings",
        "leave the weights out",
    ),
    (
        ["data.class_weights={a: 2}", "trainer.objective=lesson"],
        "data.class_weights cannot weigh trainer.objective=lesson",
        "set trainer.objective=completion",
    ),
    (["trainer.log_every=0"], "trainer.log_every=0", "at least 1"),
    (["trainer.early_stopping.patience=0"], "trainer.early_stopping.patience=0", "at least 1"),
    (["trainer.early_stopping.min_change=-1"], "trainer.early_stopping.min_change=-1.0", "at least 0"),
    (["trainer.early_stopping.min_change=1"], "trainer.early_stopping.min_change=1.0 has no effect", "set that"),
    (["trainer.early_stopping.patience=3"], "trainer.early_stopping.patience=3 cannot", "set trainer.evaluations=5 or"),
    (
        ["trainer.early_stopping.patience=1", "trainer.evaluations=0", "trainer.keep_best=false"],
        "trainer.early_stopping.patience=1 cannot stop training",
        "set trainer.evaluations=3",
    ),
    (
        ["trainer.early_stopping.patience=1", "data.splits.validation=null", "data.fractions.validation=0"],
        "trainer.early_stopping.patience=1 needs validation rows",
        "set one of them",
    ),
    (["trainer.objective=lesson", "data.template=alpaca"], "trainer.objective=lesson", "set data.template=lesson"),
    (["trainer.objective=lesson", "data.train_on=all"], "data.train_on=all", "trainer.objective=completion"),
    (["data.columns.instruction=null"], "data.columns.instruction=null", "set data.instruction to one text"),
    (["data.instruction=' '"], "data.instruction is empty", "or null"),
    (["scoring.split=train"], "scoring.split=train", "choose one of test, validation"),
    (["scoring.metrics=[blue]"], "scoring.metrics=blue", "choose one of"),
    (["data.columns.target=null"], "scoring.metrics contains names_target", "name the column"),
    (["scoring.tokenize=en"], "scoring.tokenize=en", "choose one of"),
    (["scoring.generation.batch_size=0"], "scoring.generation.batch_size=0", "at least 1"),
    (["scoring.generation.max_new_tokens=0"], "scoring.generation.max_new_tokens=0", "at least 1"),
    (["scoring.loss_batch_size=0"], "scoring.loss_batch_size=0", "at least 1"),
    (["scoring.forgetting_limit=0"], "scoring.forgetting_limit=0", "at least 1"),
    (
        ["scoring.generation.do_sample=true", "scoring.generation.temperature=0"],
        "scoring.generation.temperature=0.0",
        "above 0",
    ),
    (["scoring.generation.do_sample=true", "scoring.generation.top_p=0"], "scoring.generation.top_p=0.0", "at most 1"),
    (["tracker.name=wandb", "tracker.mode=maybe"], "tracker.mode=maybe", "choose one of offline, online"),
    (["runs_dir=''"], "runs_dir is empty", "e.g. runs_dir=runs"),
    pytest.param(["runs_dir=/dev/null/x"], "runs_dir=/dev/null/x", "name another folder", marks=pytest.mark.posix),
    (["runs_dir=~nobody_of_that_name/x"], "runs_dir=~nobody_of_that_name/x", "write out the path"),
    (["data.path=" + "x" * 300], "data.path=xxx", "use a shorter name"),
    (["model.path=" + "x" * 300], "model.path=xxx", "use a shorter name"),
    (["model.path=" + "x/" * 3000], "model.path=x/x", "use a shorter path"),
    (["lora.learning_rate=0"], "lora.learning_rate=0.0", "above 0"),
    (["lora.r=0"], "lora.r=0", "at least 1"),
    (["lora.lora_alpha=0"], "lora.lora_alpha=0.0", "above 0"),
    (["lora.lora_dropout=1"], "lora.lora_dropout=1.0", "below 1"),
    (["lora.bias=some"], "lora.bias=some", "choose one of"),
    (["lora.init_lora_weights=1"], "lora.init_lora_weights=1", "choose one of"),
    (["lora.init_lora_weights=pissa_niter_x"], "lora.init_lora_weights=pissa_niter_x", "choose one of"),
    (["lora.target_modules=[]"], "lora.target_modules=[]", "e.g. lora.target_modules=[q_proj,v_proj]"),
    (["lora.target_modules=3"], "lora.target_modules=3", "e.g. lora.target_modules=[q_proj,v_proj]"),
    (["lora.target_modules={a: b}"], "lora.target_modules={'a': 'b'}", "e.g. lora.target_modules=[q_proj,v_proj]"),
    (["lora.target_modules='('"], "lora.target_modules=(", "give a list of names"),
    (["lora.layers_to_transform=[0]"], "lora.layers_to_transform=[0]", "needs a list in lora.target_modules"),
    (
        ["lora.layers_to_transform=[-1]", "lora.target_modules=[q_proj]"],
        "lora.layers_to_transform=[-1]",
        "null for all",
    ),
    (["lora.rank_pattern={q_proj: 0}"], "lora.rank_pattern.q_proj=0", "above 0"),
    (["lora.alpha_pattern={'(': 1}"], "lora.alpha_pattern=(", "not a valid regular expression"),
    (["peft.method=lokr", "lokr.decompose_factor=0"], "lokr.decompose_factor=0", "or -1"),
    (["peft.method=adalora", "adalora.target_r=99"], "adalora.target_r=99", "pruning only lowers ranks"),
    (["peft.method=adalora", "adalora.deltaT=0"], "adalora.deltaT=0", "at least 1"),
    (["peft.method=adalora", "adalora.beta1=1"], "adalora.beta1=1.0", "below 1"),
    (["peft.method=adalora", "adalora.orth_reg_weight=0"], "adalora.orth_reg_weight=0.0", "above 0"),
    (["peft.method=adalora", "adalora.warmup_share=1"], "adalora.warmup_share=1.0", "below 1"),
    (
        ["peft.method=adalora", "adalora.warmup_share=0.6", "adalora.final_share=0.6"],
        "adalora.warmup_share + adalora.final_share",
        "lower them below 1",
    ),
    (
        ["peft.method=ia3", "ia3.target_modules=[k_proj]", "ia3.feedforward_modules=[down_proj]"],
        "ia3.feedforward_modules=['down_proj']",
        "add ['down_proj'] there",
    ),
    (
        ["peft.method=prompt_tuning", "prompt_tuning.prompt_tuning_init=NONE"],
        "prompt_tuning.prompt_tuning_init=NONE",
        "choose one of",
    ),
    (
        ["peft.method=prompt_tuning", "prompt_tuning.prompt_tuning_init=TEXT"],
        "prompt_tuning.prompt_tuning_init=TEXT",
        "needs prompt_tuning.prompt_tuning_init_text",
    ),
    (["peft.method=prompt_tuning", "prompt_tuning.num_virtual_tokens=0"], "prompt_tuning.num_virtual_tokens=0", "1"),
    (
        ["peft.method=p_tuning", "p_tuning.encoder_reparameterization_type=CNN"],
        "p_tuning.encoder_reparameterization_type=CNN",
        "choose one of MLP, LSTM",
    ),
    (
        ["peft.method=prefix_tuning", "trainer.gradient_checkpointing=true"],
        "peft=prefix_tuning",
        "set trainer.gradient_checkpointing=false",
    ),
    (
        ["peft.method=p_tuning_v2", "trainer.gradient_checkpointing=true"],
        "peft=p_tuning_v2",
        "set trainer.gradient_checkpointing=false",
    ),
    (["peft.method=p_tuning_v2", "p_tuning_v2.init_weights=one"], "p_tuning_v2.init_weights=one", "choose one of"),
    (
        ["peft.method=partial", "partial.last_layers=null"],
        "partial selects nothing to train",
        "set partial.last_layers",
    ),
    (["peft.method=partial", "partial.last_layers=0"], "partial.last_layers=0", "at least 1"),
]


@pytest.mark.parametrize(
    ("changes", "opening", "remedy"), GUARDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_guard_fires_and_names_key_value_and_remedy(changes, opening, remedy):
    faults = faults_of(*changes)
    named = [fault for fault in faults if fault.startswith(opening)]
    assert len(named) == 1, faults
    assert remedy in named[0]
    assert len(faults) == 1, "one mistake, one message"


def test_preferences_are_learned_in_one_process():
    faults = faults_of(*DPO, "trainer.parallel.strategy=ddp")
    assert [fault for fault in faults if fault.startswith("trainer.objective=dpo")] == [
        "trainer.objective=dpo trains in one process, not with trainer.parallel.strategy=ddp; set trainer/parallel=none"
    ]


def test_runs_that_cannot_pause_are_not_pruned():
    faults = faults_of("sweep.prune=halving", "trainer.parallel.strategy=fsdp")
    assert [fault for fault in faults if fault.startswith("sweep.prune")] == [
        "sweep.prune=halving pauses runs at checkpoints, which trainer.parallel.strategy=fsdp cannot write; set "
        "sweep.prune=none"
    ]


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_every_float_in_use_refuses_what_is_not_finite(value):
    plain = OmegaConf.to_container(composed_once())
    floats = [
        f"{group}.{name}"
        for group in ("trainer", "lora")
        for name, usual in plain[group].items()
        if isinstance(usual, float)
    ]
    floats += ["trainer.learning_rate", "data.fractions.test", "scoring.generation.temperature", "lora.alpha_pattern.q"]
    assert len(floats) > 8
    for key in floats:
        [fault] = faults_of(f"{key}={value}")
        assert fault.startswith(f"{key}=")
        assert "finite" in fault


def test_unused_sheet_is_not_checked():
    assert faults_of("peft.method=ia3", "lora.r=0", "lora.lora_alpha=.nan") == []


def test_faults_of_all_groups_come_together():
    faults = faults_of("seed=-1", "lora.r=0", "data.max_tokens=0", "scoring.split=train", "trainer.epochs=.nan")
    assert [fault.partition("=")[0] for fault in faults] == [
        "trainer.epochs",
        "data.max_tokens",
        "seed",
        "scoring.split",
        "lora.r",
    ]


# Every setting that takes a path, or a list of them.
PATHS = (
    *("runs_dir", "adapter_path", "data.path", "data.splits.train", "data.splits.validation", "data.splits.test"),
    *("model.path", "model.config_only", "scoring.forgetting", "scoring.judge.model", "scoring.lm_eval.include_path"),
    *("export.dir", "export.converter", "report.dir", "report.runs_dirs", "archive.dir", "import_results.path"),
    *("bundle.path", "bundle.dir", "bundle.files", "tracker.dir"),
)
LISTS = ("adapter_path", "report.runs_dirs")


@pytest.mark.parametrize("key", PATHS)
def test_an_address_instead_of_a_path_is_refused_for_every_setting(key):
    for value in ("s3://bucket/x", "[a, s3://bucket/x]")[: 1 + (key in LISTS)]:
        said = faults_of("tracker.name=tensorboard", "tracker.dir=t", f"{key}={value}")
        found = [fault for fault in said if "is an address" in fault]
        assert len(found) == 1, said
        assert found[0].startswith(f"{key}=s3://bucket/x is an address (s3)")


def test_the_settings_above_are_all_that_take_a_path():
    """A setting whose name says that it is one, and that is not listed, would not be checked."""
    config = OmegaConf.to_container(composed_once(), resolve=False, enum_to_str=True)

    def leaves(node, prefix=""):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    ends = ("path", "dir", "dirs", "files", "converter")
    named = {key for key in leaves(config) if key.split(".")[-1].rpartition("_")[2] in ends}
    assert named - set(PATHS) <= {"data.columns.path", "hydra.run.dir", "hydra.sweep.dir"}
