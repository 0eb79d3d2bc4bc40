"""Every option of every configuration group composes, converts, and is what its file says.

The golden dumps hold what each option composes to: ``golden/config.yaml`` whole, every other file what its option
changes there. HARNESS_REFRESH_GOLDEN=1 writes them anew; the diff of the commit then shows what has changed.
"""

import copy
import os
import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from harness.config import names, schema
from harness.errors import ConfigFault
from harness.methods import registry
from harness.plan.read import read_config
from tests.support.configs import CONF, composed_once, overridden
from tests.support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
REFRESH = "HARNESS_REFRESH_GOLDEN"
NO_OPTIONS = ("hydra/help", "experiment")  # parts of every config, or tested apart
OPTIONS = sorted(
    (file.parent.relative_to(CONF).as_posix(), file.stem)
    for file in CONF.rglob("*.yaml")
    if file.parent != CONF and file.parent.relative_to(CONF).as_posix() not in NO_OPTIONS
)
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
SHEET_FILES = sorted((CONF / "peft").glob("*.yaml"))
METHODS = sorted(registry.METHODS)

# The harness's own settings in a sheet: they end in PEFT's fields by another name, in the optimizer, or in our code.
OWN_SETTINGS = {
    "learning_rate",
    "warmup_share",  # adalora: tinit
    "final_share",  # adalora: tfinal
    "lora_fa",  # the optimizer
    "loraplus_lr_ratio",  # the optimizer
    "frequent_tokens",  # trainable_tokens: token_indices
    "init_std",  # p_tuning_v2: the first weights
    "init_scale",  # prefix_tuning: the first weights
    "gate_learning_rate",  # diff_pruning: gate_speed, once the learning rate is known
}


@cache
def composed(*overrides: str) -> Any:
    """Plain values, interpolations as written."""
    return OmegaConf.to_container(composed_once(*overrides), enum_to_str=True)


def option(group: str, name: str) -> tuple[str, ...]:
    return (f"{group}={name}",)


def leaves(node: Any, key: str = "") -> dict[str, Any]:
    """Dotted keys and values; lists and empty mappings are values."""
    if not isinstance(node, dict) or (not node and key):
        return {key: node}
    return {k: v for name, item in node.items() for k, v in leaves(item, f"{key}.{name}" if key else name).items()}


def has_defaults(group: str, name: str) -> bool:
    return "defaults" in OmegaConf.load(CONF / group / f"{name}.yaml")


# What these options say that they need, where ??? would not replace the value of the option that they extend.
LACKS = {
    ("scoring", "choices"): ("data.options=[no,yes]",),
    ("scoring", "judge"): ("scoring.metrics=[]",),
    ("scoring", "lm_eval"): ("scoring.lm_eval.tasks=[]",),
}


def test_every_group_is_found():
    assert {"model", "peft", "data", "trainer", "scoring", "tracker", "hydra/launcher"} <= {
        group for group, _ in OPTIONS
    }


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_option_becomes_a_plan_or_lacks_only_what_it_declares(group, name, weightless):
    # Runs over several processes are for commands that torchrun starts; to plan them takes one.
    words = (*option(group, name), *(["stage=plan"] if group == "trainer/parallel" else []))
    words += LACKS.get((group, name), ())
    values = leaves(composed(*words))
    declared = [f"{key} has no value" for key, value in values.items() if value == "???"]
    config = copy.deepcopy(composed_once(*words))
    if config.model.source is schema.ModelSource.folder:
        config.model.path = str(weightless)
    if declared:
        with pytest.raises(ConfigFault) as caught:
            read_config(config)
        assert [line.split(";")[0] for line in str(caught.value).splitlines()] == declared
    else:
        made, _ = read_config(config)
        assert made.method == (name if group == "peft" else "lora")


@pytest.mark.skipif(not (CONF.parent / "data" / "tiny" / "config.json").exists(), reason="data/tiny is not made yet")
def test_default_configuration_is_a_plan():
    made, options = read_config(copy.deepcopy(composed_once()))
    assert (made.method, made.model.name, made.data.name) == ("lora", "tiny", "medicine")
    assert options.stage is schema.Stage.run


@pytest.mark.parametrize(
    ("group", "name"),
    [pair for pair in OPTIONS if "/" not in pair[0] and pair[0] != "peft" and not has_defaults(*pair)],
)
def test_option_composes_to_what_its_file_says(group, name):
    assert composed(*option(group, name))[group] == OmegaConf.to_container(
        OmegaConf.load(CONF / group / f"{name}.yaml")
    )


@pytest.mark.parametrize("file", SHEET_FILES, ids=lambda file: file.stem)
def test_sheet_composes_to_what_its_file_says(file):
    assert file.read_text(encoding="utf-8").startswith(f"# @package _global_\npeft:\n  method: {file.stem}\n")
    content = OmegaConf.to_container(OmegaConf.load(file))
    assert set(content) == {"peft", file.stem}
    assert composed()[file.stem] == composed(f"peft={file.stem}")[file.stem] == content[file.stem]


def test_methods_are_the_same_in_options_sheets_schema_and_code():
    assert sorted(file.stem for file in SHEET_FILES) == METHODS == sorted(schema.SHEETS)
    for method in METHODS:
        assert composed(f"peft={method}")["peft"] == {"method": method}


@pytest.mark.parametrize("method", METHODS)
def test_every_sheet_leaves_its_learning_rate_to_the_rule(method):
    assert composed()[method]["learning_rate"] is None


@pytest.mark.parametrize("method", METHODS)
def test_sheet_speaks_of_fields_that_the_method_has(method):
    import torch

    from harness.methods.context import BuildContext

    ids = torch.arange(64)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    situation = BuildContext(1000, "", 0, 32, 2, batches=lambda: iter([batch]))
    sheet = {name: value for name, value in composed()[method].items() if name != "learning_rate"}
    config = registry.METHODS[method].build(sheet, situation)
    if method == "library":  # holds a mapping, which the method checks against the type's fields
        return
    assert set(sheet) - {field.name for field in fields(config)} <= OWN_SETTINGS


def sweep_of(file: Path) -> dict[str, Any]:
    """The grid that an experiment declares: overrides as Hydra's sweeper takes them."""
    content = OmegaConf.to_container(OmegaConf.load(file))
    return content.get("hydra", {}).get("sweeper", {}).get("params", {})


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiment_opens_with_its_command_and_is_a_plan(file, weightless):
    head = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    command = re.fullmatch(r"# (python -m harness .*)", head[0])
    assert command, f"{file.name} must open with its command as a comment, not {head[0]!r}"
    assert head[1].startswith("# "), "the second line says what it should show"
    words = shlex.split(command[1])[3:]
    assert f"experiment={file.stem}" in words
    assert ("-m" in words) == bool(sweep_of(file))
    config = copy.deepcopy(composed_once(*(word for word in words if not word.startswith("-") and "," not in word)))
    if config.model.source is schema.ModelSource.folder:
        config.model.path = str(weightless)
    assert read_config(config)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiment_sweeps_over_what_exists(file):
    for key, values in sweep_of(file).items():
        assert key in names.config_groups() or key in names.known_settings(), key
        if key in names.config_groups() and "(" not in str(values):
            assert set(str(values).split(",")) <= set(names.config_groups()[key]), values
        elif "(" not in str(values):
            for value in str(values).split(","):
                overridden(f"{key}={value}")  # has the key's type


# --- golden dumps ---------------------------------------------------------------------------------------


def golden_dumps() -> dict[str, tuple[str, ...]]:
    """Overrides of each dump, by its path below ``golden/``."""
    groups = {f"{group}/{name}": option(group, name) for group, name in OPTIONS if "/" not in group}
    experiments = {f"experiment/{file.stem}": (f"experiment={file.stem}",) for file in EXPERIMENTS}
    return {"config": ()} | groups | experiments


def dumped(overrides: tuple[str, ...]) -> str:
    found = composed(*overrides)
    if overrides:
        usual = leaves(composed())
        found = {key: value for key, value in leaves(found).items() if key not in usual or usual[key] != value}
    group, _, name = "".join(overrides).partition("=")
    if group == "experiment":  # Hydra keeps the grid outside of what it composes
        found["sweep"] = sweep_of(CONF / group / f"{name}.yaml")
    return yaml.safe_dump(found, allow_unicode=True, sort_keys=False, width=120)


@pytest.mark.parametrize("name", golden_dumps())
def test_composed_config_is_as_dumped(name):
    file = GOLDEN / f"{name}.yaml"
    now = dumped(golden_dumps()[name])
    if os.environ.get(REFRESH) == "1":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now, encoding="utf-8")
    kept = file.read_text(encoding="utf-8") if file.exists() else ""
    assert now == kept, (
        f"{file.name} is not what composes now; {REFRESH}=1 pytest tests/config/test_conf.py writes it anew"
    )


def test_every_dump_belongs_to_a_config():
    kept = {file.relative_to(GOLDEN).with_suffix("").as_posix() for file in GOLDEN.rglob("*.yaml")}
    stray = kept - set(golden_dumps())
    assert not stray, f"golden dumps of options that are gone: {sorted(stray)}; delete them"
