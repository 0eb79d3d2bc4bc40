"""Exact match: share of predictions equal to a reference after a stated normalization, in percent."""

from typing import Any

import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import normalization as norm  # From: .
from harness.scoring.text import overlap  # From: .

_DESCRIPTION = """
Percentage of predictions that equal any of their references after normalization (normalize in
harness.scoring.text.normalization). The default applies NFKC, collapses white space (none beside Chinese characters)
and drops final punctuation; letter case counts. Signature: norm, nrefs.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
    normalization: steps joined by '+' out of nfkc, space, final, case; or none.
Returns:
    exact_match: float in 0..100. signature: str. rows: list of float in 0..100, whose mean it is.
"""

_CITATION = """
@inproceedings{rajpurkar-etal-2016-squad,
  title = {{SQ}u{AD}: 100,000+ Questions for Machine Comprehension of Text},
  author = {Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy},
  booktitle = {EMNLP}, year = {2016}
}
"""


class ExactMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(
        self, predictions: Any = None, references: Any = None, normalization: str = norm.ANSWER
    ) -> dict[str, Any]:
        options = inputs.reference_lists(references)
        scores = [
            overlap.exact_match(prediction, row, normalization)
            for prediction, row in zip(predictions, options, strict=True)
        ]
        signature = f"norm:{normalization}|nrefs:{inputs.reference_count(options)}"
        return {"exact_match": inputs.percent(scores), "signature": signature, "rows": inputs.percents(scores)}
