"""Merged models answer as unmerged ones, method by method, and leave every weight as it was."""

import pytest
import torch
from torch import nn

from harness.scoring import merging
from harness.scoring import score as scoring_score
from harness.scoring.decode import greedy
from harness.scoring.merging import EXACT, can_merge, merged
from tests.support import method_cases as cases
from tests.support.runs import disturbed, prepared, write_rows

TOLERANCE = 1e-5  # of the largest logit
PROMPTS = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 30, 31, 32, 33, 34], [5, 6, 7, 8, 40], [5, 6, 7, 8, 12, 13, 14]]


def kind_of(model) -> str:
    kind = model.peft_config[str(model.active_adapter)].peft_type
    return str(getattr(kind, "value", kind)).upper()


def mergeable(architecture: str) -> list[str]:
    sheets = [case for case in cases.CASES if case.partition(":")[0] in {name.lower() for name in EXACT}]
    return [case for case in sheets if case != "lora:eva" and (case, architecture) not in cases.UNFIT]


PAIRS = [(case, kind) for kind in ("qwen2", "gpt2") for case in mergeable(kind)]


def storages(model: nn.Module) -> dict[str, int]:
    return {name: weight.data_ptr() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize(("case", "architecture"), cases.fast_on_qwen2(PAIRS))
def test_merged_models_answer_as_unmerged_ones_and_come_back_bit_for_bit(case, architecture):
    model = cases.trained(case, architecture).model
    assert can_merge(model)
    before, places = {name: each.clone() for name, each in model.state_dict().items()}, storages(model)
    expected = cases.logits(model)
    answers = greedy(model, PROMPTS, limit=6, stops=(), places=2)
    with merged(model) as plain:
        assert not any(hasattr(module, "merged_adapters") for module in plain.modules())
        found = cases.logits(plain)
        assert greedy(plain, PROMPTS, limit=6, stops=(), places=2) == answers
    assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], each) for name, each in before.items())
    assert storages(model) == places
    assert torch.equal(cases.logits(model), expected)


def test_every_method_that_is_called_exact_is_tested():
    tested = {kind_of(cases.trained(case, "qwen2").model) for case in mergeable("qwen2")}
    assert tested == set(EXACT)


@pytest.fixture
def made(random_qwen2, tmp_path):
    made = prepared(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs", "peft=lora")
    disturbed(made.model)
    return made


def test_an_exception_while_merged_leaves_the_model_as_it_was(made):
    before = {name: each.clone() for name, each in made.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), merged(made.model):
        raise RuntimeError("stop")
    assert all(torch.equal(each, before[name]) for name, each in made.model.state_dict().items())
    with merged(made.model):
        pass  # and it can be merged again


def test_a_layer_that_cannot_be_merged_leaves_the_model_as_it_was(made, monkeypatch):
    from peft.tuners.lora import Linear

    before, done = {name: each.clone() for name, each in made.model.state_dict().items()}, []
    merge = Linear.merge

    def second_fails(layer, *args, **settings):
        done.append(layer)
        if len(done) == 2:
            raise ValueError("cannot")
        return merge(layer, *args, **settings)

    monkeypatch.setattr(Linear, "merge", second_fails)
    with pytest.raises(ValueError, match="cannot"), merged(made.model):
        pass
    after = made.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], each) for name, each in before.items())


def test_the_storage_that_other_runs_share_is_never_written_to(made):
    shared = {name: each.clone() for name, each in made.base.model.state_dict().items()}
    with merged(made.model) as plain:
        changed = [name for name, each in plain.state_dict().items() if not torch.equal(each, shared[name])]
        assert changed
        assert all(torch.equal(each, shared[name]) for name, each in made.base.model.state_dict().items())


def test_a_base_in_half_precision_is_not_merged(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows")
    made = prepared(random_qwen2, rows, tmp_path / "runs", "peft=lora")
    made.model.get_base_model().to(torch.bfloat16)
    assert not can_merge(made.model)


def test_a_quantized_base_is_not_merged(made, monkeypatch):
    monkeypatch.setattr(made.model.get_base_model(), "is_quantized", True, raising=False)
    assert not can_merge(made.model)


def test_an_adapter_on_a_head_that_is_tied_to_the_embedding_is_not_merged(random_qwen2, tmp_path):
    words = ("peft=lora", "lora.target_modules=[q_proj,lm_head]")
    made = prepared(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs", *words)
    if not made.model.get_base_model().config.tie_word_embeddings:
        made.model.get_base_model().set_input_embeddings(nn.Embedding(1, 1))
        embedding, head = made.model.get_base_model().get_input_embeddings(), made.model.get_base_model().lm_head
        embedding.weight = head.get_base_layer().weight
    assert not can_merge(made.model)


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning_v2", "adapter", "full"])
def test_methods_that_do_not_merge_are_scored_as_they_are(random_qwen2, tmp_path, method):
    made = prepared(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs", f"peft={method}")
    assert not can_merge(made.model)


def scores_of(made):
    plan, rows = made.plan, made.rows
    return scoring_score.score(
        made.model, made.base.tokenizer, rows.splits["test"], rows.splits["validation"], plan.scoring,
        stops=rows.stops, equal_lengths=False, seed=0,
    )  # fmt: skip


def test_scores_of_a_merged_model_are_those_of_the_unmerged(made, monkeypatch):
    found = scores_of(made)
    monkeypatch.setattr(scoring_score, "can_merge", lambda model: False)
    plain = scores_of(made)
    assert found.answers == plain.answers
    assert found.values == {name: pytest.approx(value, rel=1e-5) for name, value in plain.values.items()}


def test_an_adapter_that_rounds_too_much_when_it_is_merged_is_scored_unmerged(made, monkeypatch):
    real, used = merging.merged, []

    def wrong(model):
        used.append(model)
        context = real(model)

        class Shifted:
            def __enter__(self):
                plain = context.__enter__()
                with torch.no_grad():  # private while it is merged
                    next(layer for layer in plain.modules() if isinstance(layer, nn.Linear)).weight.data.add_(0.1)
                return plain

            def __exit__(self, *failure):
                return context.__exit__(*failure)

        return Shifted()

    plain_answers = scores_of(made).answers
    monkeypatch.setattr(scoring_score, "merged", wrong)
    assert scores_of(made).answers == plain_answers
    assert used
