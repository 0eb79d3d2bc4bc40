"""Cells composed from shared parts are what Hydra makes of each alone."""

import copy
import shutil
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from harness.config import compose, schema
from harness.config.compose import Composer
from harness.plan.read import has_declared_types
from tests.support.configs import CONF

COMMAND = ["seed=0,1", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"]
CELLS = [
    ("seed=1",),
    ("seed=1", "lora.r=4", "trainer.max_steps=3"),
    ("peft=ia3", "ia3.learning_rate=0.5", "peft=loha"),
    ("lora.r=2", "experiment=ceiling", "seed=3"),
    ("trainer=lesson", "trainer.epochs=2"),
    ("trainer/parallel=ddp", "data=alpaca", "data.path='a, b.jsonl'", "data.columns.input=null"),
    ("+peft.stray=1", "++lora.stray={a: 1}", "~tracker"),
    ("model={name: mine}", "model.path=x"),
    ("seed=${lora.r}", "hydra.job.name=mine", "hydra/launcher=joblib"),
]


def loader_of(folder: Path) -> ConfigLoader:
    compose.register_schema()
    with initialize_config_dir(str(folder), version_base="1.3"):
        return GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def loader() -> ConfigLoader:
    return loader_of(CONF)


def command_of(loader: ConfigLoader) -> DictConfig:
    return loader.load_configuration("config", COMMAND, RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def command(loader) -> DictConfig:
    return command_of(loader)


@pytest.fixture(scope="module")
def composer(loader, command) -> Composer:
    return Composer(loader, command)


@pytest.mark.parametrize("overrides", CELLS, ids=" ".join)
def test_cell_is_what_hydra_composes(overrides, loader, command, composer):
    expected = loader.load_sweep_config(command, list(overrides))
    whole, own = composer.whole(overrides), composer.own(overrides)
    assert OmegaConf.to_yaml(whole) == OmegaConf.to_yaml(expected)
    assert composer.task(overrides) == tuple(expected.hydra.overrides.task)
    with open_dict(expected):
        del expected["hydra"]
    assert OmegaConf.to_yaml(own) == OmegaConf.to_yaml(expected)


def test_cells_leave_what_they_share_as_it_was(composer):
    before = OmegaConf.to_yaml(composer.own(()))
    composer.own(("lora.target_modules=[q_proj]", "seed=7"))
    composer.whole(("seed=8",))
    assert OmegaConf.to_yaml(composer.own(())) == before


def test_cells_keep_the_declared_types_so_that_reading_them_is_quick(composer):
    assert has_declared_types(composer.own(("seed=1", "lora.r=4")), schema.Config)


def test_stored_nodes_are_shared_until_they_are_loaded():
    compose.register_schema()
    store = ConfigStore.instance()
    assert copy.deepcopy(store).repo["schema.yaml"] is store.repo["schema.yaml"]
    store.load("sheets.yaml").node.lora.r = 12345
    assert store.load("sheets.yaml").node.lora.r != 12345


@pytest.mark.parametrize(
    "wrong", ["seed=", "lora.rank=4", "seed=one", "peft=lorra", "nothing@x=1", "~lora.rank", "lora.r=1,2"]
)
def test_override_that_hydra_refuses_is_refused_in_its_words(wrong, loader, command, composer):
    with pytest.raises(HydraException) as hydras:
        loader.load_sweep_config(command, ["seed=1", wrong])
    with pytest.raises(hydras.type) as ours:
        composer.own(("seed=1", wrong))
    assert str(ours.value) == str(hydras.value)


def test_file_that_is_edited_while_the_sweep_runs_changes_no_later_cell(tmp_path):
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    loader = loader_of(folder)
    composer = Composer(loader, command_of(loader))
    before = composer.own(("seed=1",)).lora.r
    sheet = folder / "peft" / "lora.yaml"
    text = sheet.read_text(encoding="utf-8")
    edited = text.replace(f"r: {before}", f"r: {before + 1}")
    assert edited != text
    sheet.write_text(edited, encoding="utf-8")
    assert composer.own(("seed=2",)).lora.r == before
    assert composer.whole(("seed=2",)).lora.r == before
