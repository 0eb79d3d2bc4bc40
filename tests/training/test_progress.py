"""What a running training shows: points of the curve, and a file for other processes."""

import torch
from transformers import TrainerControl, TrainerState

from harness.record.progress import ProgressWriter, read_progress
from harness.training import progress
from harness.training.counters import StepTimer, TokenCounter

HISTORY = [
    {"step": 1, "loss": 3.0, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 0.1},
    {"step": 1, "validation/loss": 2.5},
    {"step": 2, "loss": 2.0, "train_runtime": 4.0},
]


def test_the_curve_has_the_points_with_a_training_loss():
    assert progress.curve_of(HISTORY) == [
        {"step": 1, "loss": 3.0, "learning_rate": 1e-3, "grad_norm": 1.0},
        {"step": 2, "loss": 2.0},
    ]


def test_the_tracker_gets_each_point_as_it_comes():
    seen = []
    log = progress.LogCurve(lambda step, values: seen.append((step, values)))
    for point in HISTORY:
        logs = {key: value for key, value in point.items() if key != "step"}
        log.on_log(None, TrainerState(global_step=point["step"]), TrainerControl(), logs=logs)
    assert seen == [
        (1, {"train/loss": 3.0, "train/learning_rate": 1e-3, "train/grad_norm": 1.0}),
        (2, {"train/loss": 2.0}),
    ]


def test_other_processes_see_step_loss_and_speed(tmp_path, monkeypatch):
    timer, tokens = StepTimer(), TokenCounter(torch.device("cpu"))
    timer.seconds = 2.0
    tokens.load([10, 30, 0])
    writer = ProgressWriter(tmp_path)
    shown = progress.WriteProgress(writer, timer, tokens)
    state = TrainerState(global_step=0, max_steps=10)
    shown.on_train_begin(None, state, TrainerControl())
    shown.on_log(None, state, TrainerControl(), logs={"loss": 2.5})
    monkeypatch.setattr(writer, "due", lambda: True)
    state.global_step = 4
    shown.on_step_end(None, state, TrainerControl())
    seen = read_progress(tmp_path)
    assert (seen.step, seen.steps, seen.loss, seen.tokens_per_s) == (4, 10, 2.5, 15.0)
