"""The hooks of a method are called at their places: after the optimizer has stepped, and after the step is counted."""

from unittest import mock

from harness.training import train
from tests.support.runs import prepared, write_rows


def test_hooks_see_each_step_once_and_with_its_number(random_qwen2, tmp_path):
    made = prepared(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs", "trainer.max_steps=3")
    hooks = train.hooks_of(made.plan.method, made.plan.settings)
    calls = []
    kind = type(hooks)
    with (
        mock.patch.object(kind, "after_optimizer_step", lambda self, model, step: calls.append(("optimizer", step))),
        mock.patch.object(kind, "after_step", lambda self, model, optimizer, step: calls.append(("step", step))),
    ):
        made.train(tmp_path / "scratch")
    assert calls == [(when, step) for step in (1, 2, 3) for when in ("optimizer", "step")]
