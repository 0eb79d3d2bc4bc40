"""The validation loss of a record is that of the weights that were scored."""

import pytest

from harness.record.readings import prune_reason, validation_loss

POINTS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 3.0}]


@pytest.mark.parametrize(
    ("training", "loss"),
    [
        ({"validation": POINTS, "best_step": 1}, 2.0),
        ({"validation": POINTS, "best_step": None}, 3.0),
        ({"validation": [], "best_step": None}, None),
        ({}, None),
    ],
)
def test_validation_loss_is_that_of_the_kept_weights(training, loss):
    assert validation_loss({"training": training}) == loss


def test_the_reason_of_a_pruned_run_names_losses_and_rank():
    pruned = {"evaluation": 2, "of": 8, "loss": 1.23456, "limit": 1.0, "rank": 4, "compared": 6, "kept": 3}
    assert prune_reason(pruned) == (
        "validation loss 1.235 at evaluation 2 of 8, rank 4; 3 of 6 configurations continued, up to 1"
    )
    alone = pruned | {"loss": None, "rank": None}
    assert prune_reason(alone) == "at evaluation 2 of 8: another run of its configuration failed"
