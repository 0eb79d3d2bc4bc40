"""Model cards: results, data, command and limits, in the hub's form, without paths and secrets."""

import pytest
from huggingface_hub import ModelCard

from harness.errors import ModelFault
from harness.report.card import external_card, model_card, require_clean, without_paths
from tests.support.records import a_record

SECRET = "hf_abcdefghijklmnopqrstuvwxyz012345"


@pytest.fixture
def record():
    """A finished record with paths and a secret wherever a user could have put them."""
    kept = a_record("abc", rows={"train": 8, "test": 4}, versions={"peft": "1.0"})
    kept["code"]["harness"] = "0.1"
    kept["training"]["optimizer_steps"] = 2
    kept["plan"] |= {
        "model": {"name": "mine", "source": "folder", "path": "/home/ann/models/mine"},
        "data": {"name": "rows", "path": "/srv/private/rows.jsonl", "format": "alpaca", "template": "lesson",
                 "max_tokens": 128},
        "settings": {"r": 8, "target_modules": "/opt/x/modules", "bias": None},
        "trainer": {"max_steps": 2, "keep_best": False, "epochs": None},
        "scoring": {"split": "test"},
        "inputs": {"data": "0" * 64},
    }  # fmt: skip
    kept["scores"]["signatures"] = dict.fromkeys(kept["scores"]["after"], "nrefs:1|tok:13a")
    return kept


def test_a_card_has_metadata_results_data_command_and_limits(record):
    card = ModelCard(model_card(record, repo="ann/colors"))
    assert card.data.library_name == "peft"
    assert card.data.model_name == "colors"
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {name: pytest.approx(value) for name, value in record["scores"]["after"].items()}
    for heading in ("## Results", "## Data", "## Training", "## Command", "## Limits", "## Use"):
        assert heading in card.text
    assert f"peft={record['method']}" in card.text
    assert 'PeftModel.from_pretrained(base, "ann/colors")' in card.text
    assert 'from_pretrained("<this folder>")' in model_card(record, "merged")


def test_a_card_holds_no_path_and_no_secret(record, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    record["plan"]["data"]["name"] = f"rows-{SECRET}"
    text = model_card(record, repo="ann/colors")
    assert "/home" not in text
    assert "/srv" not in text
    assert "/opt" not in text
    assert SECRET not in text
    require_clean(text, "README.md")


def test_names_on_the_hub_stay(record):
    record["plan"]["model"] |= {"source": "hub", "path": "org/base"}
    record["plan"]["data"] |= {"path": "org/rows"}
    card = ModelCard(model_card(record))
    assert card.data.base_model == "org/base"
    assert card.data.datasets == "org/rows"
    assert "model.path=org/base" in card.text


@pytest.mark.parametrize("text", ["at /home/ann/x/y.json", "~/models/mine", "C:\\Users\\ann\\x", "file:///srv/a"])
def test_paths_are_found_and_reduced_to_their_last_part(text):
    with pytest.raises(ModelFault, match="of this machine"):
        require_clean(text, "note")
    require_clean(without_paths(text), "note")


def test_what_is_no_path_stays(monkeypatch):
    text = "org/name, tokens/s, a/b, https://huggingface.co/org/name, 1/2, <base>/<task>"
    assert without_paths(text) == text
    monkeypatch.setenv("MY_API_KEY", SECRET)
    with pytest.raises(ModelFault, match="a secret"):
        require_clean(f"key {SECRET}", "note")


ADAPTER = {
    "name": "/home/ann/colors",
    "commit": None,
    "sha256": "a" * 64,
    "base": "org/base",
    "files": {},
    "numbers": 8192,
}


def test_the_card_of_a_merged_adapter_from_elsewhere_claims_no_results():
    card = ModelCard(
        external_card({"model": {"name": "mine", "source": "folder", "path": "/srv/mine"}}, ADAPTER, "lora")
    )
    assert (card.data.model_name, card.data.library_name, card.data.base_model) == (
        "colors-merged",
        "transformers",
        None,
    )
    assert card.data.eval_results is None
    for said in (
        "`colors`, not on the hub",
        "8,192 numbers",
        "made for `org/base`",
        "has not been scored",
        "model=mine",
    ):
        assert said in card.text
    assert "/home" not in str(card)
    require_clean(str(card), "README.md")


def test_names_on_the_hub_stay_in_the_card_of_a_merged_adapter():
    plan = {"model": {"name": "hub", "source": "hub", "path": "org/base"}}
    card = ModelCard(external_card(plan, ADAPTER | {"name": "ann/colors", "commit": "12ab"}, "lora"))
    assert (card.data.model_name, card.data.base_model) == ("colors-merged", "org/base")
    assert "`ann/colors`, commit `12ab`" in card.text
    assert "model=hub model.path=org/base adapter_path=ann/colors stage=export" in card.text
