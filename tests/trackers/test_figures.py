"""What a tracker shows of a record."""

from harness.trackers.figures import config_of, points_of, summary_of
from tests.support.records import a_record

RECORD = a_record(
    "f1",
    rows={"train": 8},
    inferred={"device": "cpu", "dtype": "float32"},
    versions={"torch": "2.0"},
    training={
        "tokens_per_s": 98.8,
        "best_step": 1,
        "curve": [{"step": 1, "loss": 3.0, "grad_norm": None}, {"step": 2, "loss": 2.0}],
        "validation": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.75}],
    },
)


def test_summary_has_scores_gains_costs_and_the_loss_that_was_kept():
    summary = summary_of(RECORD)
    assert (summary["after/rouge_l"], summary["before/rouge_l"]) == (62.3, 2.25)
    assert summary["gain/loss"] == -2.5
    assert summary["validation/loss"] == 2.5  # of step 1
    assert (summary["memory_bytes/train_peak"], summary["training/tokens_per_s"]) == (2**30, 98.8)
    assert (summary["training/best_step"], summary["audit/supervised_sha256"]) == (1, "00")
    assert (summary["parameters/trainable"], summary["adapter/bytes"]) == (1_234_567, 4_000)
    assert "parameters/trainable_final" not in summary  # not measured
    assert "training/curve" not in summary


def test_config_has_the_plan_and_the_versions():
    config = config_of(RECORD)
    assert (config["learning_rate"], config["versions"]["torch"], config["method"]) == (1e-3, "2.0", "lora")


def test_of_peft_library_the_config_names_the_method():
    plan = {"method": "library", "settings": {"type": "xlora"}}
    assert config_of(a_record("f1", "library", plan=plan))["method"] == "library:xlora"


def test_points_are_those_that_were_logged():
    assert list(points_of(RECORD)) == [
        (1, {"train/loss": 3.0, "validation/loss": 2.5, "progress/step": 1}),
        (2, {"train/loss": 2.0, "validation/loss": 2.75, "progress/step": 2}),
    ]
