"""Sheets: their names, their fields, and settings that contradict each other."""

from __future__ import annotations

import re

import pytest

from harness.config import schema
from harness.errors import ConfigFault
from harness.methods import library
from harness.methods.registry import METHODS, caveat, changes_base, prompt_learning
from harness.plan.read import read_config
from harness.shipped import shipped_folder
from tests.support.configs import compose
from tests.support.method_cases import (
    every_sheet,
    sheet,
)


def test_methods_sheets_options_and_defaults_are_one_list():
    names = list(METHODS)
    assert names == list(schema.SHEETS)
    folder = shipped_folder("conf") / "peft"
    assert sorted(names) == sorted(path.stem for path in folder.glob("*.yaml"))


@every_sheet
def test_a_sheet_holds_only_fields_of_pefts_configuration(method):
    own = {"learning_rate", "warmup_share", "final_share", "lora_fa", "loraplus_lr_ratio", "frequent_tokens"}
    own |= {"gate_learning_rate", "init_std", "init_scale"}
    kind = {"p_tuning_v2": "prefix_tuning", "llama_adapter": "adaption_prompt"}.get(method, method)
    assert set(sheet(method)) - own <= set(library.library_fields(kind))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "library"])
def test_every_builder_names_its_paper_or_says_what_it_is(method):
    assert METHODS[method].build.__doc__


def test_traits_of_a_types_settings_differ_from_the_row():
    assert changes_base("lora", sheet("lora") | {"init_lora_weights": "pissa_niter_4"})
    assert not changes_base("lora", sheet("lora"))
    assert prompt_learning("library", {"type": "lily", "settings": {}})
    assert "batch" in (caveat("library", {"type": "lily", "settings": {}}) or "")
    assert caveat("lora", sheet("lora")) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("peft=adapter adapter.reduction_factor=4", "adapter.bottleneck_size=16 and adapter.reduction_factor=4"),
        ("peft=adapter adapter.placement=elsewhere", "adapter.placement=elsewhere is unknown"),
        ("peft=oft oft.r=2 oft.oft_block_size=8", "oft.r=2 and oft.oft_block_size=8"),
        ("peft=boft boft.boft_block_num=2 boft.boft_block_size=8", "boft.boft_block_num=2 and boft.boft_block_size=8"),
        ("peft=vblora vblora.topk=9 vblora.num_vectors=4", "vblora.topk=9 exceeds vblora.num_vectors=4"),
        ("peft=lora lora.lora_fa=true lora.loraplus_lr_ratio=4", "each set the optimizer"),
        ("peft=lora lora.lora_fa=true lora.use_dora=true", "lora.use_dora=true adds a third"),
        ("peft=lora +lora.eva_config.rho=1.5", "lora.eva_config has no effect without lora.init_lora_weights=eva"),
        ("peft=cpt cpt.cpt_token_ids=[5,6] cpt.cpt_mask=[1]", "cpt.cpt_mask has 1 entries for 2"),
        ("peft=diff_pruning diff_pruning.target_sparsity=0", "diff_pruning.target_sparsity=0"),
        ("peft=diff_pruning diff_pruning.stretch_upper=0.5", "diff_pruning.stretch_upper=0.5"),
        ("peft=road road.variant=road_3", "road.variant=road_3 is unknown"),
        ("peft=fourierft fourierft.n_frequency=0", "fourierft.n_frequency=0 is too small"),
        ("peft=library library.type=xlora", "library.type=xlora mixes LoRA adapters"),
        ("peft=library +library.settings.bogus=1", "library.settings.bogus=1 is unknown to DeloraConfig"),
        ("peft=library library.type=cartridge", "needs library.settings.num_virtual_tokens"),
    ],
)
def test_a_sheet_that_contradicts_itself_is_refused(words, expected):
    with pytest.raises(ConfigFault, match=re.escape(expected)):
        read_config(compose(*words.split()))
