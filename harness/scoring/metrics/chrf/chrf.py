"""chrF by sacrebleu, corpus level, 0..100."""

from typing import Any

import evaluate
from sacrebleu.metrics import CHRF

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .

_DESCRIPTION = """
Corpus-level chrF2 (character 6-grams, beta 2, white space left out) as sacrebleu computes it; word_order=2 is
chrF++. It does not tokenize. Texts without a character score 0. Signature: sacrebleu's.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str; rows may differ in how many they have.
    word_order: int, 0 for chrF, 2 for chrF++.
Returns:
    chrf: float in 0..100. signature: str.
"""

_CITATION = """
@inproceedings{popovic-2015-chrf,
  title = {chr{F}: character n-gram {F}-score for automatic {MT} evaluation},
  author = {Popovi{\\'c}, Maja},
  booktitle = {WMT}, year = {2015}
}
@inproceedings{post-2018-call,
  title = {A Call for Clarity in Reporting {BLEU} Scores},
  author = {Post, Matt},
  booktitle = {WMT}, year = {2018}
}
"""


class Chrf(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(self, predictions: Any = None, references: Any = None, word_order: int = 0) -> dict[str, Any]:
        metric = CHRF(word_order=word_order)
        result = metric.corpus_score(list(predictions), inputs.reference_streams(inputs.reference_lists(references)))
        # The mean of six exact precisions can exceed 1 by a rounding error.
        return {"chrf": min(100.0, result.score), "signature": str(metric.get_signature())}
