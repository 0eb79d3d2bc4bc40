"""Devices: the one that each process takes, and those that are absent or contradict the device map."""

from dataclasses import replace
from unittest import mock

import pytest
import torch

from harness.errors import ModelFault
from harness.models import base as model_base
from harness.models.device import pick_device
from harness.models.skeleton import skeleton
from tests.support.model_cases import model
from tests.support.runs import loaded, plan_of


@pytest.mark.parametrize(("device", "why"), [("cuda:99", "is not on this machine"), ("gpu", "is not a device")])
def test_absent_device_is_refused_before_loading(device, why):
    with pytest.raises(ModelFault, match=rf"model.device={device} {why}"):
        model_base.load_base(model("no/such", device=device))


def test_device_and_device_map_contradict(folder):
    with pytest.raises(ModelFault, match=r"model.device=cpu and model.device_map=auto contradict"):
        model_base.load_base(model(folder, device_map="auto"))
    assert model_base.load_base(model(folder, device="auto", device_map="auto")).model.device.type


def test_each_process_takes_a_gpu_of_its_own(random_qwen2, monkeypatch):
    settings = replace(plan_of(f"model.path={random_qwen2}")[0].model, device="auto")
    explicit = replace(settings, device="cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    with mock.patch("torch.cuda.is_available", return_value=True):
        assert pick_device(settings) == torch.device("cuda:0")
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert pick_device(settings) == pick_device(explicit) == torch.device("cuda:3")


def test_weights_that_device_map_leaves_outside_the_gpus_are_refused(random_qwen2):
    settings = plan_of(f"model.path={random_qwen2}", "model.device_map=auto")[0].model
    net = skeleton(loaded(random_qwen2).model.config)  # offloaded weights are on meta, too
    with pytest.raises(ModelFault, match=r"model.device_map=auto: \d+ weights do not fit on the GPUs"):
        model_base.refuse_offloaded(net, settings)
