"""Mathematical answer: share of predictions that state the answer of a reference, in percent."""

from typing import Any

import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import mathematics  # From: .

_DESCRIPTION = """
Percentage of predictions whose stated answer is that of any of their references (same_answer in
harness.scoring.text.mathematics): after the last ####, in the last \\boxed{}, after "answer is", else the last number.
Numbers and fractions are compared by value, everything else as text in one spelling. Signature: match, nrefs.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
Returns:
    math_answer: float in 0..100. signature: str. rows: list of float in 0..100, whose mean it is.
"""

_CITATION = """
@inproceedings{hendrycks2021math,
  title = {Measuring Mathematical Problem Solving With the {MATH} Dataset},
  author = {Hendrycks, Dan and Burns, Collin and others},
  booktitle = {NeurIPS Datasets and Benchmarks}, year = {2021}
}
"""


class MathAnswer(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(self, predictions: Any = None, references: Any = None) -> dict[str, Any]:
        options = inputs.reference_lists(references)
        scores = [
            float(any(mathematics.same_answer(prediction, text) for text in row))
            for prediction, row in zip(predictions, options, strict=True)
        ]
        signature = f"match:stated-answer|nrefs:{inputs.reference_count(options)}"
        return {"math_answer": inputs.percent(scores), "signature": signature, "rows": inputs.percents(scores)}
