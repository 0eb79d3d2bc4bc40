"""Small base models that many tests share. Functions that tests import are in tests/support/."""

import json
import os
import sys
from pathlib import Path

import pytest

if os.environ.get("HARNESS_WITHOUT_POSIX") == "1":  # this process and those that it starts: see sitecustomize.py there
    WITHOUT_POSIX = str(Path(__file__).parent / "support" / "without_posix")
    if WITHOUT_POSIX not in sys.path:
        sys.path.insert(0, WITHOUT_POSIX)
        sys.modules.pop("sitecustomize", None)
        os.environ["PYTHONPATH"] = os.pathsep.join([WITHOUT_POSIX, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        import pytest_timeout
        import sitecustomize  # noqa: F401

        pytest_timeout.DEFAULT_METHOD = "thread"  # the other one needs SIGALRM


def pytest_collection_modifyitems(items):
    from harness.runtime.platform import POSIX

    there = {"posix": POSIX, "linux": POSIX and sys.platform == "linux"}
    for item in items:
        for name in [name for name, found in there.items() if not found and item.get_closest_marker(name)]:
            item.add_marker(pytest.mark.skip(reason=f"needs {name}"))


@pytest.fixture(scope="session")
def weightless(tmp_path_factory) -> Path:
    """A folder that a plan accepts as a base model: a config to hash, no weights to load. Needs no torch."""
    folder = tmp_path_factory.mktemp("weightless")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 64, **sizes}))
    return folder


@pytest.fixture(scope="session")
def three_runs(random_qwen2, tmp_path_factory):
    """Finished runs on one base, which tests only read: LoRA of two ranks, prompt tuning."""
    from tests.support.talks import make_runs

    return make_runs(random_qwen2, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="session")
def random_qwen2(tmp_path_factory) -> Path:
    """A Qwen2 model of 2 layers with random weights and a byte-level tokenizer, saved as a folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("random_qwen2")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """A file of a few small rows."""
    from tests.support.runs import write_rows

    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    """Makes a plan over the small rows, by overrides, ready to train or to score."""
    from tests.support.runs import prepared

    return lambda *words: prepared(random_qwen2, rows, tmp_path / "runs", *words)
