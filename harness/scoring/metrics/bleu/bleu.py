"""BLEU by sacrebleu, corpus level, 0..100."""

from typing import Any

import evaluate
from sacrebleu.metrics import BLEU

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text.tokenization import jieba_words, tokenizer_version  # From: .

_DESCRIPTION = """
Corpus-level BLEU-4 (exponential smoothing, letter case counts) as sacrebleu computes it. With
tokenize="jieba", jieba cuts predictions and references into words, and sacrebleu does not tokenize them further. As
published, a corpus whose predictions hold no 4-gram scores 0, even if all are right. Signature: sacrebleu's, with the
tokenizer named.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, or list of lists of str; rows may differ in how many they have.
    tokenize: zh (Chinese by character, the rest by 13a), 13a, char, intl, none, or jieba.
    lowercase: bool.
Returns:
    bleu: float in 0..100. signature: str.
"""

_CITATION = """
@inproceedings{papineni-etal-2002-bleu,
  title = {{B}leu: a Method for Automatic Evaluation of Machine Translation},
  author = {Papineni, Kishore and Roukos, Salim and Ward, Todd and Zhu, Wei-Jing},
  booktitle = {ACL}, year = {2002}
}
@inproceedings{post-2018-call,
  title = {A Call for Clarity in Reporting {BLEU} Scores},
  author = {Post, Matt},
  booktitle = {WMT}, year = {2018}
}
"""


# sacrebleu has more; they download a model or need a dictionary that is not installed here.
_OFFLINE = ("zh", "13a", "char", "intl", "none", "jieba")


class Bleu(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=inputs.text_features(),
        )

    def _compute(
        self, predictions: Any = None, references: Any = None, tokenize: str = "zh", lowercase: bool = False
    ) -> dict[str, Any]:
        if tokenize not in _OFFLINE:
            raise ValueError(f"tokenize={tokenize!r} is not supported; choose one of {', '.join(_OFFLINE)}")
        answers, expected = list(predictions), inputs.reference_lists(references)
        by_jieba = tokenize == "jieba"
        if by_jieba:
            answers = [" ".join(jieba_words(text)) for text in answers]
            expected = [[" ".join(jieba_words(text)) for text in options] for options in expected]
        # force: texts cut by jieba may end in " .", which makes sacrebleu warn. It does not change the score.
        metric = BLEU(tokenize="none" if by_jieba else tokenize, lowercase=lowercase, force=by_jieba)
        result = metric.corpus_score(answers, inputs.reference_streams(expected))
        signature = str(metric.get_signature())
        if by_jieba:
            signature = signature.replace("tok:none", f"tok:{tokenizer_version('jieba')}")
        # The geometric mean of four exact precisions can exceed 100 by a rounding error.
        return {"bleu": min(100.0, result.score), "signature": signature}
