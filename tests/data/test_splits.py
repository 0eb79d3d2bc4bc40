"""Cuts, limits and duplicates: decided by the rows and ``data.split_seed`` alone."""

import random
from pathlib import Path

from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.data.dataset import read_splits
from harness.data.splits import SPLITS
from tests.support.data_cases import fault, flat, jsonl, settings


def test_splits_depend_on_the_seed_and_on_nothing_else(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i}", "output": "a", "input": ""} for i in range(200)]
    file = jsonl(tmp_path, rows)
    random.seed(1)
    first = read_splits(settings(file))
    random.seed(2)
    assert read_splits(settings(file)) == first
    assert [len(first.splits[name]) for name in SPLITS] == [160, 20, 20]
    assert read_splits(settings(file, split_seed=1)).splits["test"] != first.splits["test"]
    assert read_splits(settings(file, fractions=(0.4, 0.1))).splits["test"] == first.splits["test"]
    numbers = [row.number for row in first.splits["train"]]
    assert numbers == sorted(numbers)


def test_rows_of_one_prompt_stay_on_one_side_of_a_cut(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i % 40}", "output": f"a{i}", "input": ""} for i in range(200)]
    for seed in range(5):
        found = read_splits(settings(jsonl(tmp_path, rows), split_seed=seed))
        assert found.duplicates_across_splits == 0
        assert len(found.splits["test"]) in range(16, 21)


def test_one_prompt_for_all_rows_is_cut_and_reported_as_duplicates(tmp_path: Path) -> None:
    rows = [{"instruction": "write", "output": f"a{i}", "input": ""} for i in range(20)]
    found = read_splits(settings(jsonl(tmp_path, rows)))
    assert [len(found.splits[name]) for name in SPLITS] == [16, 2, 2]
    assert found.duplicates_across_splits == 4


def test_limits_are_drawn_by_seed_and_nest(tmp_path: Path) -> None:
    file = jsonl(tmp_path, [{"instruction": f"q{i}", "output": "a", "input": ""} for i in range(100)])
    small = read_splits(settings(file, limits=(5, 2, None)))
    large = read_splits(settings(file, limits=(10, None, None)))
    assert [len(small.splits[name]) for name in SPLITS] == [5, 2, 10]
    assert set(small.splits["train"]) < set(large.splits["train"])
    assert read_splits(settings(file, limits=(5, 2, None), split_seed=3)).splits["train"] != small.splits["train"]
    assert "data.limits.train=0" in fault(file, limits=(0, None, None))


several = limits(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@several
@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=60), st.integers(0, 10**6))
def test_every_row_lands_in_exactly_one_split(tmp_path: Path, prompts: list[str], seed: int) -> None:
    rows = [{"instruction": prompt, "output": "a", "input": ""} for prompt in prompts]
    found = read_splits(settings(jsonl(tmp_path, rows), split_seed=seed))
    assert [row.number for row in flat(found)] == list(range(1, len(rows) + 1))
