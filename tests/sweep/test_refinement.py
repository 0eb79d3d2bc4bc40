"""After a grid: fresh seeds at the best learning rate of each setting, and at the rates beside it."""

import pytest

from harness.config.schema import RefineSettings
from harness.sweep.refinement import outlook, places_around_best
from tests.support.runs import command, overrides, records_of, write_rows
from tests.support.sweeps import finish_record, make_cell

RATES = (0.001, 0.003, 0.01, 0.03)


def cells_of(tmp_path, model, *settings, **options):
    return [make_cell(tmp_path, model, *words.split(), **options) for words in settings]


def with_losses(cells, losses):
    """Finished records of these cells, with one validation loss each; None: no record."""
    for cell, loss in zip(cells, losses, strict=True):
        if loss is not None:
            points = [{"step": 1, "loss": loss}]
            training = {"validation": points, "best_step": 1, "optimizer_steps": 1}
            finish_record(cell, training=training, scores={"before": {}, "after": {}, "signatures": {}, "cut": {}})
    return cells


def refine(seeds=2, rates=1):
    return RefineSettings(seeds=seeds, rates=rates)


@pytest.fixture
def grid(tmp_path, weightless):
    """Four rates of two ranks."""
    return cells_of(
        tmp_path, weightless, *(f"lora.r={r} trainer.learning_rate={rate}" for r in (2, 4) for rate in RATES)
    )


def test_the_best_rate_and_its_neighbors_of_each_setting_get_seeds(grid):
    with_losses(grid, (4.0, 2.0, 1.0, 3.0, 1.0, 0.5, 2.0, 3.0))
    assert places_around_best(grid, refine()) == [1, 2, 3, 4, 5, 6]
    assert places_around_best(grid, refine(rates=0)) == [2, 5]


def test_a_best_rate_at_the_edge_is_named(grid, caplog):
    with_losses(grid, (1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0))
    with caplog.at_level("WARNING"):
        assert places_around_best(grid, refine()) == [0, 1, 6, 7]
    assert "0.001 is at the edge of the rates for lora.r=2; add rates below it" in caplog.text
    assert "0.03 is at the edge of the rates for lora.r=4; add rates above it" in caplog.text


def test_a_rate_without_a_finished_run_is_passed_over_and_a_setting_without_any_is_named(grid, caplog):
    with_losses(grid, (4.0, None, 1.0, 3.0, None, None, None, None))
    assert places_around_best(grid, refine()) == [0, 2, 3]
    assert "no rate can be chosen for lora.r=4" in caplog.text


def test_rates_are_compared_by_their_mean_over_seeds(tmp_path, weightless):
    words = [f"trainer.learning_rate={rate} seed={seed}" for rate in RATES[:2] for seed in (0, 1)]
    cells = with_losses(cells_of(tmp_path, weightless, *words), (1.0, 4.0, 2.0, 2.0))
    assert places_around_best(cells, refine(rates=0)) == [2]


def test_the_plan_says_how_many_runs_may_follow(tmp_path, weightless):
    words = [f"lora.r={r} trainer.learning_rate={rate}" for r in (2, 4) for rate in RATES]
    cells = cells_of(tmp_path, weightless, *words, refine=refine())
    assert outlook(cells) == "then 2 fresh seeds around the best rate of 2 settings: at most 12 more runs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "refine.seeds=2", "lora.r=2,4"), "needs a grid over trainer.learning_rate"),
        (("-m", "refine.seeds=0", "trainer.learning_rate=0.1,0.2"), "refine.seeds=0"),
        (("-m", "refine.seeds=1", "select.split=validation"), "both add fresh seeds after a grid"),
        (("-m", "refine.seeds=1", "trainer.evaluations=0"), "set trainer.evaluations=1"),
        (("-m", "refine.seeds=1", "sweep.prune=halving", "trainer.learning_rate=0.1,0.2"), "sweep.prune=halving"),
        (("refine.seeds=1",), "follows a grid of learning rates; add -m"),
    ],
)
def test_what_cannot_be_refined_is_refused(words, said, tmp_path):
    done = command(*words, f"runs_dir={tmp_path}")
    assert done.code == 2, done.err
    assert said in done.err


@pytest.mark.slow
def test_one_command_runs_the_grid_and_then_fresh_seeds_around_the_best_rate(random_qwen2, tmp_path):
    words = overrides(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs")
    words = ("-m", *words, "trainer.learning_rate=0.0001,0.003,0.05", "refine.seeds=2", "refine.rates=0")
    done = command(*words)
    assert done.code == 0, done.err
    records = list(records_of(tmp_path / "runs").values())
    assert sorted(record["plan"]["seed"] for record in records) == [0, 0, 0, 1, 2]
    assert len({record["plan"]["learning_rate"] for record in records if record["plan"]["seed"]}) == 1
    again = command(*words)
    assert again.code == 0, again.err
    assert {record["attempt"] for record in records_of(tmp_path / "runs").values()} == {1}
