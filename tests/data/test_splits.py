"""Cuts, limits and duplicates: decided by the rows and ``data.split_seed`` alone."""

import random
from pathlib import Path

from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.data.dataset import read_splits
from harness.data.splits import SPLITS
from tests.support.data_cases import ALPACA, fault, flat, jsonl, settings


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
        assert sum(len(row.all_references) for row in found.splits["test"]) in range(16, 21)
        assert {len(row.all_references) for row in found.splits["test"]} == {5}
        assert {len(row.all_references) for row in found.splits["train"]} == {1}


def test_one_prompt_for_all_rows_is_cut_and_reported_as_duplicates(tmp_path: Path) -> None:
    rows = [{"instruction": "write", "output": f"a{i}", "input": ""} for i in range(20)]
    found = read_splits(settings(jsonl(tmp_path, rows)))
    assert [len(found.splits[name]) for name in SPLITS] == [16, 1, 1]
    assert [len(found.splits[name][0].all_references) for name in SPLITS] == [1, 2, 2]
    assert found.duplicates_across_splits == 2
    assert found.notes[0] == (
        "validation: 1 rows have the prompt of an earlier row; each prompt is one row with all its references"
    )


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
    rows = [{"instruction": prompt, "output": f"a{i}", "input": ""} for i, prompt in enumerate(prompts)]
    found = read_splits(settings(jsonl(tmp_path, rows), split_seed=seed))
    texts = [text for row in flat(found) for text in row.all_references]
    assert sorted(texts) == sorted(row["output"] for row in rows)


def test_a_row_with_several_outputs_trains_on_each_and_is_scored_against_all(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i}", "output": [f"a{i}", f"b{i}"], "input": ""} for i in range(20)]
    found = read_splits(settings(jsonl(tmp_path, rows)))
    assert [len(found.splits[name]) for name in SPLITS] == [32, 2, 2]
    first, second = found.splits["train"][:2]
    assert (first.number, first.output, first.references) == (second.number, first.output, ())
    assert [row.output[0] for row in (first, second)] == ["a", "b"]
    assert [row.messages[-1].content for row in (first, second)] == [first.output, second.output]
    scored = found.splits["test"][0]
    assert scored.all_references == (scored.output, scored.output.replace("a", "b"))
    assert len(read_splits(settings(jsonl(tmp_path, rows), limits=(5, None, None))).splits["train"]) == 5


def test_rows_with_one_prompt_can_stay_rows(tmp_path: Path) -> None:
    rows = [{"instruction": "q", "output": f"a{i}", "input": ""} for i in range(20)]
    found = read_splits(settings(jsonl(tmp_path, rows), group_by_prompt=False))
    assert [len(found.splits[name]) for name in SPLITS] == [16, 2, 2]
    assert not any(row.references for row in flat(found))
    assert found.notes == ()


def test_rows_with_one_prompt_and_different_targets_stay_apart(tmp_path: Path) -> None:
    rows = [{"instruction": "q", "output": f"a{i}", "input": "", "short": f"a{i % 2}"} for i in range(40)]
    found = read_splits(settings(jsonl(tmp_path, rows), {**ALPACA, "target": "short"}))
    assert sorted(str(row.target) for row in found.splits["test"]) == ["a0", "a1"]
