"""The validation loss of a record is that of the weights that were scored."""

import pytest

from harness.record.readings import validation_loss

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
