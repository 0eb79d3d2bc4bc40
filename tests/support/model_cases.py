"""Model settings, small networks and made-up packages that the tests of the models share."""

import hashlib
import zipfile
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as bpe
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.config.schema import DType, Model, ModelSource, Quantization
from tests.support.paths import ROOT

CONF = ROOT / "conf"
MODEL_FILES = sorted((CONF / "model").glob("*.yaml"))
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def model(path: object = None, **changes) -> Model:
    """Settings of a model in a folder, unless ``changes`` say otherwise."""
    values = {
        "name": "toy", "source": ModelSource.folder, "path": None if path is None else str(path), "revision": None,
        "packages": [], "sha256": None, "config_only": None, "dtype": DType.auto, "device": "cpu", "device_map": None,
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


def ids(rows: int = 2) -> torch.Tensor:
    return torch.randint(3, 250, (rows, 9), generator=torch.Generator().manual_seed(1))


def tied(net) -> bool:
    return net.get_input_embeddings().weight is net.get_output_embeddings().weight


def composed(name: str) -> Model:
    common = OmegaConf.load(CONF / "model" / "hub.yaml")
    own = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    assert own.pop("defaults", None) == (None if name == "hub" else ["hub", "_self_"])
    path = {"path": "org/name"} if name == "hub" else {}
    merged = OmegaConf.to_container(OmegaConf.merge(common, own, path), resolve=True)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), merged))


def files(path: Path, **files: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": b"{}", **files}.items():
        (path / name).write_bytes(content)
    return path


def snapshot(root: Path, commit: str = "c0ffee") -> Path:
    (root / "models--a--b" / "refs").mkdir(parents=True)
    (root / "models--a--b" / "refs" / "main").write_text(commit)
    return files(root / "models--a--b" / "snapshots" / commit, **{"model.safetensors": b"12"})


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(index: Path, name: str, member: str, content: bytes) -> None:
    index.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nope\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
