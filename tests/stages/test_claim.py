"""stage=claim as a command: its records, its report, its paragraph; the same command trains nothing again."""

import json

import pytest

from tests.support.runs import command, overrides, records_of, write_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def claim(random_qwen2, rows, tmp_path):
    """Runs a claim on small runs, ten at most after two of tuning."""
    shared = [*overrides(random_qwen2, rows, tmp_path / "runs"), "stage=claim", "claim.name=small"]
    return lambda *words: command(*shared, *words)


def content_of(tmp_path):
    return json.loads((tmp_path / "runs" / "claims" / "small" / "claim.json").read_text())


@pytest.mark.parametrize("launcher", ["basic", "packed"])
def test_one_command_judges_a_claim_and_leaves_its_records_and_report(claim, tmp_path, launcher):
    words = ["claim.text=lora > ia3 on loss", "claim.rates=[1,30]", "claim.budget.runs=14"]
    words += [] if launcher == "basic" else [f"hydra/launcher={launcher}"]
    done = claim(*words)
    assert done.code == 0, done.err
    content = content_of(tmp_path)
    assert content["verdict"] in ("supported", "refuted", "undecided")
    assert content["paragraph"] in done.out
    assert done.err.count("pair 5 (seed 5)") == 1
    records = records_of(tmp_path / "runs")
    assert len(records) == content["cost"]["runs"] == 14
    assert {each for pair in content["runs"] for each in pair["fingerprints"]} <= records.keys()
    splits = [record["plan"]["scoring"]["split"] for record in records.values()]
    assert (splits.count("validation"), splits.count("test")) == (4, 10)
    folder = tmp_path / "runs" / "claims" / "small"
    assert (folder / "report.html").exists()

    again = claim(*words)
    assert again.code == 0, again.err
    assert content_of(tmp_path) == content
    assert {record["attempt"] for record in records_of(tmp_path / "runs").values()} == {1}
    shown = command("stage=report", f"runs_dir={tmp_path / 'runs'}", f"report.sweep={folder}")
    assert shown.code == 0, shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["claim.text=lora > lora"], "both arms make the same plan"),
        (["claim.text=lora > ia3 on bleu"], "claim.metric=bleu is not measured"),
        (["-m", "claim.text=lora > ia3"], "stage=claim does not take a sweep; leave out -m"),
        (["claim.text=lora lora.r=2,4 > ia3"], "lora.r=2,4"),
        (["claim.text=lora lora.rank=2 > ia3"], "lora.rank"),
        (["claim.text=lora lora.r=0 > ia3"], "lora.r=0"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_wrong_input(claim, tmp_path, words, message):
    done = claim(*words)
    assert done.code == 2, done.err
    assert message in done.err
    assert not (tmp_path / "runs").exists()


def test_a_budget_sets_the_size_of_both_arms(claim, tmp_path):
    text = "claim.text=lora > loha on loss at equal budget"
    words = [text, "claim.rates=[1]", "claim.budget.runs=10", "budget.trainable_params=2000", "sweep.max_hours=1e-7"]
    cut = claim(*words)
    assert "the claim is open: 0 pairs judged" in cut.err
    arms = content_of(tmp_path)["arms"]
    assert "budget.trainable_params=2,000" in arms["better"]["budget"]
    assert "budget.trainable_params=2,000" in arms["than"]["budget"]
    assert arms["better"]["trainable"] > 0


def test_a_claim_is_ended_by_its_time_and_resumed(claim, tmp_path):
    words = ["claim.text=lora > ia3 on loss", "claim.rates=[1]", "claim.budget.runs=10"]
    cut = claim(*words, "sweep.max_hours=0.0000001")
    assert cut.code == 1
    assert "the claim is open: 0 pairs judged; run the same command again to resume" in cut.err
    done = claim(*words)
    assert done.code == 0, done.err
    assert content_of(tmp_path)["pairs"] == 5
