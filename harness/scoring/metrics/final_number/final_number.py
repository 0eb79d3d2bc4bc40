"""Final number: share of predictions that end in the number of a reference, in percent."""

from typing import Any

import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import mathematics  # From: .

_DESCRIPTION = """
Percentage of predictions whose final number is that of any of their references (final_number in
harness.scoring.text.mathematics): after the last ####, else in the last \\boxed{}, else the last number. A row whose
references hold no number counts as wrong. Signature: numbers (rows that have one), match, nrefs.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
Returns:
    final_number: float in 0..100. signature: str. rows: list of float in 0..100, whose mean it is.
"""

_CITATION = """
@article{cobbe2021gsm8k,
  title = {Training Verifiers to Solve Math Word Problems},
  author = {Cobbe, Karl and Kosaraju, Vineet and others},
  journal = {arXiv:2110.14168}, year = {2021}
}
"""


class FinalNumber(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(self, predictions: Any = None, references: Any = None) -> dict[str, Any]:
        options = inputs.reference_lists(references)
        expected = [{mathematics.final_number(text) for text in row} - {None} for row in options]
        scores = [
            float(mathematics.final_number(prediction) in numbers)
            for prediction, numbers in zip(predictions, expected, strict=True)
        ]
        count = sum(bool(numbers) for numbers in expected)
        signature = f"numbers:{count}|match:after-####-or-boxed-or-last|nrefs:{inputs.reference_count(options)}"
        return {"final_number": inputs.percent(scores), "signature": signature, "rows": inputs.percents(scores)}
