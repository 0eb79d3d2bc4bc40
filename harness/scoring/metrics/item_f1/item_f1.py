"""Item F1: micro-averaged F1 of what predictions and references list, in percent."""

from collections import Counter
from typing import Any

import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import items, normalization  # From: .

_DESCRIPTION = """
Micro-averaged F1 of the items that answers list (items in harness.scoring.text.items): the values of a JSON object with
their names, else the lines of a text without its headings. Equal items count as often as both sides have them; of
several references the one with the most in common counts. Signature: items, norm, nrefs.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
Returns:
    item_f1: float in 0..100. signature: str.
"""

_CITATION = """
@inproceedings{tjong-kim-sang-de-meulder-2003-introduction,
  title = {Introduction to the {C}o{NLL}-2003 Shared Task: Language-Independent Named Entity Recognition},
  author = {Tjong Kim Sang, Erik F. and De Meulder, Fien},
  booktitle = {CoNLL}, year = {2003}
}
"""


class ItemF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(self, predictions: Any = None, references: Any = None) -> dict[str, Any]:
        options = inputs.reference_lists(references)
        common, listed = 0, 0
        for prediction, row in zip(predictions, options, strict=True):
            found = items.items(prediction)
            best = max((_counts(found, items.items(text)) for text in row), key=_f1)
            common += best[0]
            listed += best[1]
        signature = f"items:json-or-lines|norm:{normalization.ANSWER}|nrefs:{inputs.reference_count(options)}"
        # Nothing listed on either side, in any row: all are right.
        return {"item_f1": 100 * (2 * common / listed if listed else 1.0), "signature": signature}


def _counts(found: Counter[tuple[str, str]], expected: Counter[tuple[str, str]]) -> tuple[int, int]:
    """Items in common, and items of both sides together."""
    return (found & expected).total(), found.total() + expected.total()


def _f1(counts: tuple[int, int]) -> float:
    return 2 * counts[0] / counts[1] if counts[1] else 1.0
