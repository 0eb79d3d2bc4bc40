"""Token F1 as in SQuAD: overlap of prediction and reference as bags of tokens, mean over rows, in percent."""

from typing import Any

import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import overlap  # From: .
from harness.scoring.text.tokenization import tokenizer_version  # From: .

_DESCRIPTION = """
Mean over rows of the best F1 between the bag of tokens of the prediction and that of a reference. Two texts
without a token agree only if they are equal. Signature: tok, nrefs.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
    tokenize: mixed (Chinese by character, other scripts by word), squad, rouge, char or jieba; see
        tokenize_text in harness.scoring.text.tokenization. With squad, the value is that of the official
        SQuAD 1.1 script.
Returns:
    token_f1: float in 0..100. signature: str. rows: list of float in 0..100, whose mean it is.
"""

_CITATION = """
@inproceedings{rajpurkar-etal-2016-squad,
  title = {{SQ}u{AD}: 100,000+ Questions for Machine Comprehension of Text},
  author = {Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy},
  booktitle = {EMNLP}, year = {2016}
}
"""


class TokenF1(evaluate.Metric):
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
            overlap.token_f1(prediction, row, tokenize) for prediction, row in zip(predictions, options, strict=True)
        ]
        signature = f"tok:{tokenizer_version(tokenize)}|nrefs:{inputs.reference_count(options)}"
        return {"token_f1": inputs.percent(scores), "signature": signature, "rows": inputs.percents(scores)}
