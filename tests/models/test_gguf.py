"""A GGUF file converted: the same model, the same tokenizer."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from harness.config.schema import ModelSource
from harness.errors import ModelFault
from harness.models import base as model_base
from harness.models import sources as model_sources
from harness.record.files import file_sha256
from tests.support.model_cases import (
    ALPHABET,
    SPECIAL,
    ids,
    model,
    network,
    tied,
    tokenizer,
)


def write_gguf(path: Path, net: LlamaForCausalLM) -> None:
    """A float32 GGUF as llama.cpp writes it: query and key rows interleaved for its rotary layout."""
    import gguf

    config, writer = net.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = [*SPECIAL, *ALPHABET, "th", "the"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
        return weight.view(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q"}
    names |= {"self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}
    names |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    state = {name: value.detach() for name, value in net.named_parameters()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for theirs, ours in names.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                heads = config.num_attention_heads if ours == "attn_q" else config.num_key_value_heads
                weight = interleave(weight, heads)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_file_becomes_the_same_model_and_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "cache"))
    net = network()
    write_gguf(tmp_path / "toy.gguf", net)
    asked = model(tmp_path / "toy.gguf", source=ModelSource.gguf)
    loaded = model_base.load_base(asked)
    torch.testing.assert_close(loaded.model(ids()).logits, net(ids()).logits, atol=1e-5, rtol=1e-4)
    assert tied(loaded.model)
    assert "weights dequantized to float32 from toy.gguf" in loaded.notes
    text = "the other, 中国 1889"
    assert loaded.tokenizer(text).input_ids == tokenizer()(text).input_ids
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text
    assert (loaded.tokenizer.eos_token, loaded.tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    located = model_sources.locate_weights(asked)
    assert "quantization_config" not in json.loads((located.folder / "config.json").read_text())
    with pytest.raises(ModelFault, match=f"model.sha256 expects f00, got {file_sha256(tmp_path / 'toy.gguf')}"):
        model_sources.locate_weights(dataclasses.replace(asked, sha256="f00"))


def test_file_that_is_not_gguf_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"not gguf at all")
    with pytest.raises(ModelFault, match=r"bad.gguf cannot be converted"):
        model_sources.locate_weights(model(tmp_path / "bad.gguf", source=ModelSource.gguf))
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"]
