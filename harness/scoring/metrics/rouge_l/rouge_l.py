"""ROUGE-L: F1 from the longest common subsequence of tokens, sentence level, mean over rows, in percent."""

from typing import Any

import evaluate

from harness.scoring import text
from harness.scoring.metrics import inputs

_DESCRIPTION = """
Mean over rows of the best sentence-level ROUGE-L F1 over the references: precision and recall are the length
of the longest common subsequence over the length of the prediction and of the reference, beta is 1. With
tokenize="rouge" it is rouge_score's rougeL without stemming. Two texts without a token agree only if they
are equal (rouge_score gives 0). Signature: tok, nrefs, level, beta.
"""


_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str.
    tokenize: mixed (Chinese by character, other scripts by word), squad, rouge, char or jieba; see
        harness.texts.tokenise.
Returns:
    rouge_l: float in 0..100. signature: str.
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
        scores = [text.rouge_l(said, good, tokenize) for said, good in zip(predictions, options, strict=True)]
        tokeniser = text.tokenizer_version(tokenize)
        signature = f"tok:{tokeniser}|nrefs:{inputs.reference_count(options)}|level:sentence|beta:1"
        return {"rouge_l": inputs.percent(scores), "signature": signature}
