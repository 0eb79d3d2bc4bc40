"""Forecasts of how long runs take, from the records of comparable runs."""

import pytest

from harness.estimate import duration
from tests.support.runs import plan_of


def measured(plan, train_s, steps, host="here", once_s=5.0):
    return {
        "status": "finished", "method": plan.method, "plan": plan.as_dict(), "owner": {"host": host},
        "times_s": {"load": once_s, "tokenize": 0.0, "score_before": 0.0, "train": train_s, "score_after": 2.0},
        "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:01+00:00",
        "training": {"optimizer_steps": steps}, "rows": {"train": 80},
    }  # fmt: skip


def plan(weightless, *words):
    return plan_of(f"model.path={weightless}", "trainer.batch_size=8", "trainer.gradient_accumulation_steps=1", *words)[
        0
    ]


def test_estimate_scales_training_by_steps_and_counts_loading_once(weightless):
    short = plan(weightless, "trainer.max_steps=10", "lora.r=2")
    longer = [plan(weightless, "trainer.max_steps=30", f"lora.r={r}") for r in (4, 8)]
    known = duration.Forecast([measured(short, 10.0, 10)], "here")
    assert known.seconds(longer) == (2 * (30.0 + 2.0) + 5.0, 0)
    by_epochs = plan(weightless, "trainer.epochs=2")  # 80 rows in batches of 8
    assert known.seconds([by_epochs]) == (20.0 + 2.0 + 5.0, 0)


def test_estimate_prefers_the_same_method_and_this_machine(weightless):
    lora, ia3 = plan(weightless, "trainer.max_steps=10"), plan(weightless, "trainer.max_steps=10", "peft=ia3")
    seen = [measured(lora, 10.0, 10), measured(ia3, 4.0, 10), measured(ia3, 1.0, 10, host="other")]
    assert duration.Forecast(seen, "here").seconds([ia3]) == (4.0 + 2.0 + 5.0, 0)
    assert duration.Forecast(seen[:1], "here").seconds([ia3]) == (10.0 + 2.0 + 5.0, 0)


def test_estimate_is_unknown_without_a_comparable_finished_run(weightless):
    lora = plan(weightless, "trainer.max_steps=10")
    broken = {**measured(lora, 1.0, 10), "times_s": {}}
    other = measured(plan(weightless, "trainer.max_steps=10", "trainer.batch_size=4"), 1.0, 10)
    assert duration.Forecast([broken, other], "here").seconds([lora]) == (0.0, 1)


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (754, "13 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")]
)
def test_duration_is_written_no_more_precisely_than_it_is_known(seconds, words):
    assert duration.in_words(seconds) == words
