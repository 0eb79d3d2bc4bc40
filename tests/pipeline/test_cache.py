"""What the runs of one process share is made once, is never changed by them, and is never confused."""

import json
from unittest import mock

import pytest
import torch

from harness.errors import DataFault
from harness.models import base as model_base
from harness.models.base import fingerprint_weights, load_base
from harness.pipeline.cache import ProcessCache
from harness.scoring import score as scoring_score
from tests.support.runs import overrides, plan_of, write_rows


@pytest.fixture
def cache():
    return ProcessCache()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def planned(random_qwen2, rows, tmp_path):
    return lambda *words: plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)[0]


def test_a_base_is_loaded_once_and_another_replaces_it(cache, planned):
    lora, ia3, bf16 = planned(), planned("peft=ia3"), planned("model.dtype=bfloat16")
    with mock.patch.object(model_base, "load_base", side_effect=load_base) as load:
        first = cache.base(lora)
        again = cache.base(ia3)
        assert (again.base, again.seconds, load.call_count) == (first.base, 0.0, 1)
        assert first.seconds > 0
        other = cache.base(bf16)
        assert load.call_count == 2
        assert cache.shared is other


def test_a_changed_base_is_noticed_and_the_next_run_loads_it_again(cache, planned):
    plan = planned()
    shared = cache.base(plan)
    assert cache.check_base() is None
    with torch.no_grad():
        next(shared.base.model.parameters())[0, 0] += 1e-4
    assert "the next run loads it again" in cache.check_base()
    fresh = cache.base(plan)
    assert fresh.base is not shared.base
    assert fresh.checksum == shared.checksum == fingerprint_weights(fresh.base.model)


def test_rows_are_tokenized_once_per_data_and_limits(cache, planned, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(5)))
    plain = planned(f"scoring.forgetting={texts}")
    base = cache.base(plain).base
    first = cache.rows(plain, base)
    again = cache.rows(planned(f"scoring.forgetting={texts}", "peft=ia3"), base)
    assert again.splits is first.splits
    assert again.seconds == 0.0
    fewer = cache.rows(planned(f"scoring.forgetting={texts}", "scoring.forgetting_limit=2"), base)
    assert (len(first.held_out), len(fewer.held_out)) == (5, 2)
    assert len(cache.rows(planned("data.limits.train=7"), base).splits["train"]) == 7


def test_a_split_that_this_plan_needs_and_another_did_not_is_missed(cache, planned):
    splits = "data.splits={train: train.jsonl, validation: null, test: test.jsonl}"
    without = planned(splits, "data.fractions.validation=0", "trainer.evaluations=0", "trainer.keep_best=false")
    base = cache.base(without).base
    cache.rows(without, base)
    with pytest.raises(DataFault, match="no row for the split validation"):
        cache.rows(planned(splits, "data.fractions.validation=0"), base)


def test_a_baseline_is_kept_in_the_process_and_on_disk(cache, planned, tmp_path):
    plan = planned()
    shared = cache.base(plan)
    rows = cache.rows(plan, shared.base)
    with mock.patch.object(scoring_score, "score", side_effect=scoring_score.score) as scoring:
        first, reused = cache.baseline(plan, shared, rows, tmp_path, "code")
        assert (reused, scoring.call_count) == (False, 1)
        assert cache.baseline(plan, shared, rows, tmp_path, "code") == (first, True)
        assert ProcessCache().baseline(plan, shared, rows, tmp_path, "code") == (first, True)
        assert scoring.call_count == 1
        assert cache.baseline(plan, shared, rows, tmp_path, "other code")[1] is False


def test_plans_of_another_protocol_have_another_baseline(cache, planned, tmp_path):
    shared = cache.base(planned())
    for number, words in enumerate((("seed=0",), ("scoring.generation.max_new_tokens=3",), ("data.limits.test=3",)), 1):
        plan = planned(*words)
        cache.baseline(plan, shared, cache.rows(plan, shared.base), tmp_path, "code")
        assert len(list((tmp_path / "baselines").iterdir())) == number
    same = planned("seed=1", "peft=ia3")  # greedy decoding draws nothing
    assert cache.baseline(same, shared, cache.rows(same, shared.base), tmp_path, "code")[1] is True


def test_a_teacher_is_loaded_once(cache, planned, random_qwen2, tmp_path):
    plan = planned("trainer.objective=distill", f"trainer.teacher={random_qwen2}")
    other = planned("trainer.objective=distill", f"trainer.teacher={random_qwen2}", "trainer.distill_weight=0.1")
    tokenizer = cache.base(plan).base.tokenizer
    first, second = (cache.teacher(each, tmp_path, tokenizer) for each in (plan, other))
    assert first.model is second.model
    assert (first.weight, second.weight) == (0.5, 0.1)
