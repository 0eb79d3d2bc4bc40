"""ROUGE-L: F1 from the longest common subsequence of tokens, sentence level, mean over rows, in percent."""

from typing import Any

import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import overlap  # From: .
from harness.scoring.text.tokenization import tokenizer_version  # From: .

_DESCRIPTION = """
Mean over rows of the best sentence-level ROUGE-L F1 over the references: precision and recall are the length
of the longest common subsequence over the length of the prediction and of the reference, beta is 1. With
tokenize="rouge" it is rouge_score's rougeL without stemming. Two texts without a token agree only if they
are equal (rouge_score returns 0). Signature: tok, nrefs, level, beta.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
    tokenize: mixed (Chinese by character, other scripts by word), squad, rouge, char or jieba; see
        tokenize_text in harness.scoring.text.tokenization.
Returns:
    rouge_l: float in 0..100. signature: str. rows: list of float in 0..100, whose mean it is.
"""

_CITATION = """
@inproceedings{lin-2004-rouge,
  title = {{ROUGE}: A Package for Automatic Evaluation of Summaries},
  author = {Lin, Chin-Yew},
  booktitle = {Text Summarization Branches Out}, year = {2004}
}
"""


class RougeL(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(self, predictions: Any = None, references: Any = None, tokenize: str = "mixed") -> dict[str, Any]:
        options = inputs.reference_lists(references)
        scores = [
            overlap.rouge_l(prediction, row, tokenize) for prediction, row in zip(predictions, options, strict=True)
        ]
        nrefs = inputs.reference_count(options)
        signature = f"tok:{tokenizer_version(tokenize)}|nrefs:{nrefs}|level:sentence|beta:1"
        return {"rouge_l": inputs.percent(scores), "signature": signature, "rows": inputs.percents(scores)}
