"""What several processes on one run cannot do is refused with a remedy."""

from unittest import mock

import pytest

from harness.errors import ConfigFault
from harness.plan.read import read_config
from tests.support.configs import overridden


@pytest.mark.parametrize(
    ("world", "words", "said"),
    [
        (2, [], r"WORLD_SIZE=2, but .*: 2 processes would each do the same run; add trainer/parallel=ddp"),
        (1, ["trainer/parallel=fsdp"], r"start them with torchrun --nproc-per-node 2 -m harness trainer/parallel=fsdp"),
        (2, ["trainer/parallel=ddp", "trainer.parallel.processes=3"], r"processes=3 but WORLD_SIZE=2; remove"),
        (2, ["trainer/parallel=ddp", "stage=report"], r"stage=report runs in one process, but WORLD_SIZE=2"),
        (2, ["trainer/parallel=ddp", "model.device_map=auto"], r"model.device_map=auto uses several devices"),
        (2, ["trainer/parallel=ddp", "model.device=cuda:1"], r"model.device=cuda:1 would put all processes"),
        (2, ["trainer/parallel=ddp", "peft=cpt"], r"peft=cpt takes the mean of each batch for itself"),
        (2, ["trainer/parallel=ddp", "peft=diff_pruning"], r"peft=diff_pruning fixes during training what it trains"),
        (
            2,
            ["trainer/parallel=fsdp", "peft=adalora"],
            r"peft=adalora prunes ranks by whole .* use trainer/parallel=ddp",
        ),
        (
            2,
            ["trainer/parallel=deepspeed_zero3", "trainer.parallel.deepspeed.zero_optimization=3"],
            r"zero_optimization=3 must hold settings, such as its stage; set .*zero_optimization.stage=3",
        ),
        (
            2,
            ["trainer/parallel=deepspeed_zero3", "trainer.parallel.deepspeed.zero_optimization.stage=5"],
            r"zero_optimization.stage=5 must be 1, 2 or 3",
        ),
        (2, ["trainer/parallel=fsdp", "lora.lora_fa=true"], r"lora.lora_fa=true multiplies whole weights"),
        (2, ["trainer/parallel=fsdp", "model.quantization=nf4"], r"model.quantization=nf4 packs weights"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_with_a_remedy(monkeypatch, world, words, said):
    groups = tuple(word for word in words if "/" in word or word.startswith("peft="))
    config = overridden(*(word for word in words if word not in groups), onto=groups)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(ConfigFault, match=said):
        read_config(config)


def test_deepspeed_without_its_package_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with mock.patch("importlib.util.find_spec", return_value=None), pytest.raises(ConfigFault, match="pip install"):
        read_config(overridden(onto=("trainer/parallel=deepspeed_zero3",)))


def test_the_number_of_processes_is_part_of_the_plan_and_idle_settings_are_not(monkeypatch):
    def fingerprint(*words: str, onto: tuple[str, ...] = ()) -> str:
        return read_config(overridden(*words, onto=onto))[0].fingerprint

    assert fingerprint() == fingerprint("trainer.parallel.find_unused_parameters=true")
    ddp = ("trainer/parallel=ddp",)
    found = []
    for world in ("2", "4"):
        monkeypatch.setenv("WORLD_SIZE", world)
        found.append(fingerprint(onto=ddp))
    assert fingerprint("trainer.parallel.find_unused_parameters=true", onto=ddp) == found[1]
    assert len({fingerprint(onto=("trainer/parallel=fsdp",)), *found}) == 3
