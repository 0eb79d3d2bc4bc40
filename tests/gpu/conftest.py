"""These tests need a GPU that torch can use, and are skipped where there is none."""

import pytest
import torch

NO_GPU = pytest.mark.skip(reason="needs a GPU that torch can use")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "tests/gpu" in str(item.path).replace("\\", "/"):
                item.add_marker(NO_GPU)
