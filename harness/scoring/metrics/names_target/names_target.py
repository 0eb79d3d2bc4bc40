"""Names the target: share of predictions whose first named candidate is the row's target, in percent."""

from typing import Any

import datasets
import evaluate

# If harness is missing, evaluate tells the user to "pip install" what follows "From:", which is this checkout.
from harness.scoring.metrics import inputs  # From: .
from harness.scoring.text import names  # From: .
from harness.scoring.text.normalization import NAME, normalize  # From: .

_DESCRIPTION = """
Percentage of predictions that name their row's target before any other candidate (first_named in
harness.scoring.text.names). At the earliest place where any candidate starts, the longest candidate that fits is the
one named: a text that says 小柴胡颗粒 does not name 柴胡颗粒. That holds only if both are candidates: if the longer
name is not, the shorter one is found inside it; pass a fuller list as candidates.
What the text says about the name (negation, doubt) is ignored. Signature: names (how many), match, norm.
"""

_INPUTS = """
Args:
    predictions: list of str.
    references: list of str, the target name of each row.
    candidates: list of str, further names besides the targets; None: the targets alone.
Returns:
    names_target: float in 0..100. signature: str. rows: list of float in 0..100, whose mean it is.
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
        blank = [row for row, target in enumerate(targets) if not normalize(target, NAME)]
        if blank:
            raise ValueError(f"references[{blank[0]}] names no target ({len(blank)} such rows); give each row a name")
        index = names.name_index([*targets, *(candidates or [])])
        scores = [
            names.names_target(prediction, target, index)
            for prediction, target in zip(predictions, targets, strict=True)
        ]
        signature = f"names:{sum(map(len, index.values()))}|match:leftmost-longest|norm:{NAME}"
        return {"names_target": inputs.percent(scores), "signature": signature, "rows": inputs.percents(scores)}
