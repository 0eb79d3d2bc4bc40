"""Made scores with known variances, for statistics over seeds and rows."""

from collections.abc import Sequence

import numpy as np

from harness.report.statistics.model import RunScores


def a_run(configuration: str, seed: int, aggregate: float, *, metric: str = "rouge_l", **more) -> RunScores:
    """One score of one run without values per row."""
    usual = {"method": configuration.split()[0], "label": configuration, "group": "g"}
    return RunScores(configuration=configuration, seed=seed, metric=metric, aggregate=aggregate, **(usual | more))


def runs_of(configuration: str, values: Sequence[float], seeds: Sequence[int] | None = None, **more) -> list[RunScores]:
    """Runs of one configuration, one value per seed."""
    return [a_run(configuration, seed, value, **more) for seed, value in zip(seeds or range(99), values, strict=False)]


def with_rows(configuration: str, table: np.ndarray, seeds: Sequence[int] | None = None, **more) -> list[RunScores]:
    """Runs of one configuration with values per row: [seed, row]."""
    return [
        a_run(configuration, seed, float(values.mean()), **({"rows": values, "row_set": "the rows"} | more))
        for seed, values in zip(seeds or range(99), table, strict=False)
    ]


def crossed(
    rng: np.random.Generator, shape: tuple[int, ...], *, mean: float, seed: float, row: float, rest: float
) -> np.ndarray:
    """[..., seed, row] with the given standard deviations of seeds, of rows, and of what is left."""
    *leading, seeds, rows = shape
    return (
        mean
        + rng.normal(0, seed, (*leading, seeds, 1))
        + rng.normal(0, row, (*leading, 1, rows))
        + rng.normal(0, rest, shape)
    )
