"""What runs of one process share is made once, is never changed by them, and is never taken for something else."""

import json
import logging
from unittest import mock

import pytest
import torch

from harness.errors import DataFault
from harness.models import base as model_base
from harness.models.base import fingerprint_weights, load_base
from harness.pipeline import cache
from tests.support.runs import overrides, plan_of, write_rows


@pytest.fixture(autouse=True)
def alone():
    """Each test begins and ends with nothing at hand."""
    for _ in (1, 2):
        cache.release_base()
        cache._baselines.clear()
        if _ == 1:
            yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def planned(random_qwen2, rows, tmp_path):
    return lambda *words: plan_of(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)[0]


def test_a_base_is_loaded_once_and_another_takes_its_place(planned):
    lora, ia3, bf16 = planned(), planned("peft=ia3"), planned("model.dtype=bfloat16")
    with mock.patch.object(model_base, "load_base", side_effect=load_base) as load:
        first, _ = cache.load_shared_base(lora)
        again, seconds = cache.load_shared_base(ia3)
        assert (again, seconds, load.call_count) == (first, 0.0, 1)
        cache.load_shared_base(bf16)
        assert load.call_count == 2
        assert len(cache._bases) == 1


def test_tampering_with_the_base_is_noticed_and_the_next_run_loads_it_anew(planned):
    plan = planned()
    base, _ = cache.load_shared_base(plan)
    assert cache.check_base(plan) is None
    before = cache.base_checksum(plan)
    with torch.no_grad():
        next(base.model.parameters())[0, 0] += 1e-4
    assert "loaded anew" in cache.check_base(plan)
    fresh, _ = cache.load_shared_base(plan)
    assert fresh is not base
    assert cache.base_checksum(plan) == before == fingerprint_weights(fresh.model)


def test_rows_are_tokenised_once_per_data_and_limits(planned, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(5)))
    plain = planned(f"scoring.forgetting={texts}")
    base, _ = cache.load_shared_base(plain)
    first = cache.prepared_rows(plain, base)
    again = cache.prepared_rows(planned(f"scoring.forgetting={texts}", "peft=ia3"), base)
    assert again.splits is first.splits
    assert again.seconds == 0.0
    fewer = cache.prepared_rows(planned(f"scoring.forgetting={texts}", "scoring.forgetting_limit=2"), base)
    assert (len(first.held_out), len(fewer.held_out)) == (5, 2)
    assert len(cache.prepared_rows(planned("data.limits.train=7"), base).splits["train"]) == 7


def test_a_split_that_this_plan_needs_and_another_did_not_is_missed(planned, rows):
    splits = "data.splits={train: train.jsonl, validation: null, test: test.jsonl}"
    without = planned(splits, "data.fractions.validation=0", "trainer.evaluations=0", "trainer.keep_best=false")
    base, _ = cache.load_shared_base(without)
    cache.prepared_rows(without, base)
    with pytest.raises(DataFault, match="no row for the split validation"):
        cache.prepared_rows(planned(splits, "data.fractions.validation=0"), base)


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"values": {"loss": 1.0}}', "no answers", "no number"])
def test_a_baseline_is_kept_in_the_process_and_on_disk_and_measured_again_when_damaged(
    planned, tmp_path, damage, caplog
):
    plan, runs_dir = planned(), tmp_path / "runs"
    base, _ = cache.load_shared_base(plan)
    rows = cache.prepared_rows(plan, base)
    logging.getLogger("harness").propagate = True
    with mock.patch.object(cache, "score", side_effect=cache.score) as scoring:
        first, reused = cache.baseline(plan, base, rows, runs_dir, "code")
        assert (reused, scoring.call_count) == (False, 1)
        assert cache.baseline(plan, base, rows, runs_dir, "code") == (first, True)
        cache._baselines.clear()
        assert cache.baseline(plan, base, rows, runs_dir, "code") == (first, True)
        assert scoring.call_count == 1
        cache._baselines.clear()
        [file] = (runs_dir / "baselines").iterdir()
        if damage.startswith("no "):
            kept = json.loads(file.read_text())
            kept |= {"answers": []} if damage == "no answers" else {"values": {"loss": float("nan")}}
            damage = json.dumps(kept)
        file.write_text(damage)
        assert cache.baseline(plan, base, rows, runs_dir, "code") == (first, False)
        assert "it is measured again" in caplog.text
        assert cache.baseline(plan, base, rows, runs_dir, "other code")[1] is False


def test_plans_of_another_protocol_have_another_baseline(planned, tmp_path):
    base, _ = cache.load_shared_base(planned())
    for number, words in enumerate((("seed=0",), ("scoring.generation.max_new_tokens=3",), ("data.limits.test=3",)), 1):
        plan = planned(*words)
        cache.baseline(plan, base, cache.prepared_rows(plan, base), tmp_path, "code")
        assert len(list((tmp_path / "baselines").iterdir())) == number
    same = planned("seed=1", "peft=ia3")  # greedy decoding draws nothing
    assert cache.baseline(same, base, cache.prepared_rows(same, base), tmp_path, "code")[1] is True
