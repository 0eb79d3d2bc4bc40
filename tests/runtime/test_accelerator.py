"""Which device auto means, by what the driver and torch's build say."""

import pytest

from harness.runtime import accelerator
from harness.runtime.accelerator import Accelerator, Driver


class Library:
    """NVIDIA's driver library with so many GPUs."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus

    def cuDriverGetVersion(self, version):
        version._obj.value = 12040
        return 0

    def cuInit(self, flags):
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = self._gpus
        return 0

    def cuDeviceGet(self, device, index):
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = 9
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = b"H100"
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 80 << 30
        return 0


@pytest.mark.parametrize(
    ("gpus", "driver"), [(2, Driver(12040, 2, 9, "H100", 80 << 30)), (0, Driver(12040)), (None, None)]
)
def test_the_driver_is_read(monkeypatch, gpus, driver):
    def load(name):
        if gpus is None:
            raise OSError(name)
        return Library(gpus)

    monkeypatch.setattr(accelerator.ctypes, "CDLL", load)
    assert accelerator.cuda_driver() == driver


@pytest.mark.parametrize(
    ("release", "driver", "device"),
    [
        (12, Driver(12040, 1, 9), Accelerator("cuda", True)),
        (12, Driver(12040, 1, 7), Accelerator("cuda", False)),
        (13, Driver(12040, 1, 9), Accelerator("cpu")),
        (12, Driver(12040), Accelerator("cpu")),
        (12, Driver(None), Accelerator("cpu")),
        (12, None, Accelerator("cpu")),
        (12, Driver(12040, 1, None), None),
    ],
)
def test_auto_is_a_gpu_that_torch_can_use(release, driver, device):
    assert accelerator.chosen(release, driver) == device
