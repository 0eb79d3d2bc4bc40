"""Batches without padding against padded ones."""

import pytest
import torch
import transformers

from harness.data.collate import collate, with_needed_logits
from harness.data.tokenize import TokenizedRow
from harness.training.fused import rows
from harness.training.fused.head import SUPPORTED, fused_head
from harness.training.fused.rows import joined, joined_rows, why_padded
from tests.support import method_cases
from tests.support.runs import prepared, write_rows

SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": False}
SHORT, LONG = [5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15]


def small(kind: str, **changes):
    """A model of this architecture with random weights, whose embeddings train: their gradient shows each token's."""
    config = transformers.AutoConfig.for_model(kind, **SIZES, **HEADS, **changes)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False).train()
    model.get_input_embeddings().requires_grad_(True)
    return model


def batch_of(*texts: list[int]):
    """A batch of these tokens, of which the first two are the prompt."""
    examples = [TokenizedRow(tuple(text), prompt_length=2, row=None, prompt="") for text in texts]
    return with_needed_logits(collate(examples, 0, "right"))


def pass_over(model, batch, join: bool):
    """Loss and gradients, by name, of one pass; whether it was joined."""
    model.zero_grad()
    with fused_head(model) as used:
        assert used
        if join:
            with joined_rows(model, batch) as [given]:
                loss = model(**given, num_items_in_batch=11).loss
                loss.backward()
        else:
            given = batch
            loss = model(**batch, num_items_in_batch=11).loss
            loss.backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return loss.detach(), gradients, "row_lengths" in given


def assert_equal_passes(model, batch):
    loss, gradients, was_joined = pass_over(model, batch, join=True)
    expected_loss, expected, _ = pass_over(model, batch, join=False)
    assert was_joined
    assert_alike(loss, gradients, expected_loss, expected)


def assert_alike(loss, gradients, expected_loss, expected):
    """Loss and gradients, by name, are equal up to rounding, and there are some."""
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    assert gradients
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5 * scale + 1e-9, msg=name)


@pytest.mark.parametrize("kind", sorted(SUPPORTED))
def test_loss_and_gradients_are_those_of_the_padded_batch(kind):
    model = small(kind)
    assert why_padded(model) is None
    assert_equal_passes(model, batch_of(SHORT, LONG, LONG[:5]))


def test_rows_do_not_see_each_other():
    model = small("llama")
    own, _, _ = pass_over(model, batch_of(SHORT, LONG), join=True)
    alone = [model(**batch_of(text), num_items_in_batch=11).loss for text in (SHORT, LONG)]
    torch.testing.assert_close(own, sum(alone).detach(), rtol=1e-5, atol=1e-6)


def test_gradient_checkpointing_computes_the_same_attention_once_more():
    model = small("llama")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_equal_passes(model, batch_of(SHORT, LONG))


@pytest.mark.parametrize("tokens", [4, 9, 12, 100])
def test_parts_of_a_batch_add_up_to_it(tokens):
    model, batch = small("llama"), batch_of(SHORT, LONG, LONG[:5], SHORT)
    expected_loss, expected, _ = pass_over(model, batch, join=False)
    model.zero_grad()
    loss = 0.0
    with fused_head(model), joined_rows(model, batch, tokens) as given:
        assert len(given) == {4: 4, 9: 3, 12: 2, 100: 1}[tokens]
        for part in given:
            share = model(**part, num_items_in_batch=11).loss
            share.backward()
            loss += float(share.detach())
    assert loss == pytest.approx(float(expected_loss), rel=1e-5)
    for name, gradient in expected.items():
        own = model.get_parameter(name).grad
        torch.testing.assert_close(own, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_parts_hold_at_most_so_many_tokens():
    assert rows.parts([4, 7, 5, 4], None) == [slice(0, 4)]
    assert rows.parts([300, 300, 300, 300], 1000) == [slice(0, 2), slice(2, 4)]
    assert rows.parts([10, 2000, 10], 512) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    lengths = [100 + 37 * (number % 7) for number in range(20)]
    found = rows.parts(lengths, 512)
    assert [row for part in found for row in range(20)[part]] == list(range(20))
    assert all(sum(lengths[part]) <= 512 for part in found)


def test_small_models_keep_little_and_pass_more_at_once():
    assert rows.tokens_at_once(small("llama")) > 100 * rows.TOKENS_AT_ONCE
    wide = small("llama")
    wide.config.num_hidden_layers = 3000
    assert rows.tokens_at_once(wide) == rows.TOKENS_AT_ONCE


def test_the_joined_batch_has_no_padding():
    batch = joined(batch_of(SHORT, LONG))
    assert batch["input_ids"].tolist() == [SHORT + LONG]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]]
    assert batch["shift_labels"].tolist() == [[-100, 7, 8, -100, -100, 11, 12, 13, 14, 15, -100]]
    assert batch["row_lengths"] == [4, 7]


@pytest.mark.parametrize("case", [case for case in method_cases.QUICK if method_cases.traits(case).token_wise])
def test_methods_that_adapt_each_token_by_itself(case):
    model = method_cases.build(case, "qwen2").train()
    if why_padded(model) is not None or not _frozen_head(model):
        pytest.skip("its loss needs logits, or it drops out")
    batch = with_needed_logits(next(method_cases.batches()))
    torch.manual_seed(0)
    loss, gradients, was_joined = pass_over(model, batch, join=True)
    torch.manual_seed(0)
    expected_loss, expected, _ = pass_over(model, batch, join=False)
    assert was_joined
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-9, msg=name)


def _frozen_head(model) -> bool:
    with fused_head(model) as used:
        return used


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attention_dropout": 0.1}, "dropout"),
        ({"attn_implementation": "eager"}, "attention is another"),
    ],
)
def test_models_whose_batches_stay_padded(changes, reason):
    assert reason in why_padded(small("llama", **changes))


def test_an_architecture_that_was_not_checked_stays_padded():
    config = transformers.AutoConfig.for_model("gpt2", vocab_size=97, n_embd=32, n_layer=1, n_head=4)
    assert "not been checked" in why_padded(transformers.AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_a_row_beyond_the_window_stays_padded(kind):
    batch = batch_of(SHORT, LONG)
    assert not pass_over(small(kind, sliding_window=6), batch, join=True)[2]
    assert pass_over(small(kind, sliding_window=7), batch, join=True)[2]


def test_one_row_and_unknown_inputs_stay_as_they_are():
    model = small("llama")
    assert not pass_over(model, batch_of(LONG), join=True)[2]
    batch = {**batch_of(SHORT, LONG), "token_type_ids": torch.zeros(2, 7, dtype=torch.long)}
    with joined_rows(model, batch) as [given]:
        assert given is batch


def test_attention_is_itself_again_even_after_an_error():
    model = small("llama")
    model.model.layers[1].register_forward_pre_hook(lambda *_: pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception, match="stop"):
        pass_over(model, batch_of(SHORT, LONG), join=True)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("method", ["lora", "ia3", "full"])
def test_training_joins_rows_and_ends_where_plain_training_does(method, random_qwen2, tmp_path, monkeypatch):
    seen = []
    inner = rows.joined
    monkeypatch.setattr(rows, "joined", lambda batch: seen.append(batch) or inner(batch))
    folder = write_rows(tmp_path / "rows")
    losses = {}
    for kernels in ("auto", "plain"):
        made = prepared(random_qwen2, folder, tmp_path, f"peft={method}", f"trainer.kernels={kernels}")
        done = made.train(tmp_path / kernels)
        losses[kernels] = [point["loss"] for point in done.curve]
        assert (done.padding_tokens == 0) == (kernels == "auto" and method != "full")
        if kernels == "auto":
            assert len(seen) == (0 if method == "full" else 2)  # full: its head trains
    assert len(seen) <= 2
    assert losses["auto"] == pytest.approx(losses["plain"], rel=1e-5)


@pytest.mark.parametrize(("method", "parts"), [("lora", 4), ("adalora", 1)])
def test_training_in_parts_ends_where_whole_passes_do(method, parts, random_qwen2, tmp_path, monkeypatch):
    folder, found = write_rows(tmp_path / "rows", constant=True), {}
    for tokens in (1000, 60):
        monkeypatch.setattr(rows, "TOKENS_AT_ONCE", tokens)
        monkeypatch.setattr(rows, "KEPT_ANYHOW", 1)
        made = prepared(random_qwen2, folder, tmp_path, f"peft={method}")
        passes = []
        made.model.get_base_model().model.layers[0].register_forward_pre_hook(
            lambda module, *_, passes=passes: passes.append(module) if module.training else None
        )
        done = made.train(tmp_path / str(tokens))
        found[tokens] = [point["loss"] for point in done.curve], made.trainable(), len(passes)
    assert found[60][0] == pytest.approx(found[1000][0], rel=1e-5)
    # adalora adds its penalty to each pass
    assert (found[1000][2], found[60][2] > 2) == (2, parts > 1)
    for name, weight in found[1000][1].items():
        torch.testing.assert_close(found[60][1][name], weight, rtol=1e-3, atol=1e-5)


def test_prompts_stay_padded(random_qwen2, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "joined", lambda batch: pytest.fail("joined"))
    folder = write_rows(tmp_path / "rows")
    prepared(random_qwen2, folder, tmp_path, "peft=prompt_tuning", "prompt_tuning.num_virtual_tokens=2").train(tmp_path)
