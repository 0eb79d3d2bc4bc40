"""Names the target: share of predictions whose first named candidate is the row's target, in percent."""

from typing import Any

import datasets
import evaluate

from harness.scoring import text
from harness.scoring.metrics import inputs

_DESCRIPTION = """
Percentage of predictions that name their row's target before any other candidate (harness.texts.first_named).
At the earliest place where any candidate starts, the longest candidate that fits is the one named: a text
that says 小柴胡颗粒 does not name 柴胡颗粒. That holds only where both are candidates: where the longer name
is not, the shorter is found inside it; pass a fuller list as candidates.
What the text says about the name (negation, doubt) is not read. Signature: names (how many), match, norm.
"""


_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, the target name of each row.
    candidates: list of str, names to tell apart besides the targets; None stands for the targets alone.
Returns:
    names_target: float in 0..100. signature: str.
"""


_CITATION = "None: defined by this project, see docs/metrics.md."


class NamesTarget(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        one = datasets.Value("string")
        features = datasets.Features({"predictions": one, "references": one})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self, predictions: Any = None, references: Any = None, candidates: list[str] | None = None
    ) -> dict[str, Any]:
        targets = [options[0] for options in inputs.reference_lists(references)]
        blank = [row for row, target in enumerate(targets) if not text.normalize(target, text.NAME)]
        if blank:
            raise ValueError(f"references[{blank[0]}] names no target ({len(blank)} such rows); give each row a name")
        index = text.name_index([*targets, *(candidates or [])])
        scores = [text.names_target(said, target, index) for said, target in zip(predictions, targets, strict=True)]
        signature = f"names:{sum(map(len, index.values()))}|match:leftmost-longest|norm:{text.NAME}"
        return {"names_target": inputs.percent(scores), "signature": signature}
