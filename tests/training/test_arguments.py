"""A plan's settings as Trainer takes them."""

from unittest import mock

import pytest
import torch

from harness.training.arguments import training_arguments
from tests.support.runs import overrides, plan_of, write_rows


@pytest.fixture
def plan(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows")
    return plan_of(*overrides(random_qwen2, rows, tmp_path), "peft=full")[0]


def test_precision_is_that_of_the_base(plan, tmp_path):
    arguments = training_arguments(plan, torch.device("cpu"), torch.bfloat16, 2, tmp_path)
    assert (arguments.bf16, arguments.fp16) == (True, False)
    assert arguments.n_gpu <= 1


def test_training_stays_on_the_gpu_that_the_plan_names(plan, tmp_path):
    with mock.patch("torch.cuda.set_device") as current:
        arguments = training_arguments(plan, torch.device("cuda:1"), torch.float32, 2, tmp_path)
    assert arguments.device == torch.device("cuda:1")  # left alone, Trainer takes cuda:0
    current.assert_called_once_with(torch.device("cuda:1"))
