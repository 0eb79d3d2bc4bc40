"""Devices that are absent or contradict the device map."""

import pytest

from harness.errors import ModelFault
from harness.models import base as model_base
from tests.support.model_cases import model


@pytest.mark.parametrize(("device", "why"), [("cuda:99", "is not on this machine"), ("gpu", "is not a device")])
def test_absent_device_is_refused_before_loading(device, why):
    with pytest.raises(ModelFault, match=rf"model.device={device} {why}"):
        model_base.load_base(model("no/such", device=device))


def test_device_and_device_map_contradict(folder):
    with pytest.raises(ModelFault, match=r"model.device=cpu and model.device_map=auto contradict"):
        model_base.load_base(model(folder, device_map="auto"))
    assert model_base.load_base(model(folder, device="auto", device_map="auto")).model.device.type
