"""A claim about two arms, read from ``claim.text`` or from its parts, before anything is composed for the arms.

"Better" is meant in the direction in which the score is better: "lora > ia3 on loss" says that LoRA's loss is lower.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from harness.config.schema import SHEETS, ClaimSettings, Config, Prune, Relation, Stage
from harness.errors import above, at_least, brief, one_of, raise_together
from harness.scoring.catalog import SCORES
from harness.scoring.custom import measured

EXAMPLE = "claim.text='lora > ia3 on loss'"

_TEXT = re.compile(
    r"\s*(?P<better>.+?)\s+(?P<sign>>|<|==)\s+(?P<than>.+?)"
    r"(?:\s+on\s+(?P<metric>\S+))?(?:\s+within\s+(?P<margin>\S+))?(?P<budget>\s+at\s+equal\s+budget)?\s*"
)
_SETTINGS = ("better", "than", "relation", "metric", "margin")  # what the text says instead


@dataclass(frozen=True)
class Claim:
    """What is claimed of two arms; each arm is the overrides that it adds to the command."""

    better: tuple[str, ...]
    than: tuple[str, ...]
    relation: Relation
    metric: str
    margin: float
    equal_budget: bool

    @property
    def tuned_by(self) -> str:
        """The score that each arm's rate is chosen by: what is forgotten is least if nothing is learned."""
        return "loss" if self.metric == "forgetting_loss" else self.metric

    @property
    def text(self) -> str:
        """The claim as it could be typed."""
        sign = ">" if self.relation is Relation.better else "=="
        within = f" within {self.margin:g}" if self.margin or self.relation is Relation.equal else ""
        budget = " at equal budget" if self.equal_budget else ""
        return f"{' '.join(self.better)} {sign} {' '.join(self.than)} on {self.metric}{within}{budget}"

    @property
    def slug(self) -> str:
        """The claim as the beginning of a folder's name."""
        first, second = (
            re.sub(r"[^\w.-]+", "-", "-".join(side).replace("peft=", ""))[:40] for side in (self.better, self.than)
        )
        return f"{first}-{self.relation.value}-{second}-{self.metric}"


def read_claim(settings: ClaimSettings) -> Claim:
    """The claim of these settings.

    Raises:
        ConfigFault: it cannot be understood; all faults are listed together.
    """
    parts, faults = _parts(settings)
    raise_together(faults)
    assert parts is not None
    return parts


def claim_faults(config: Config) -> Iterator[str]:
    """What of ``claim`` does not make a claim that the runs of this configuration could decide."""
    claim = config.claim
    if config.stage is not Stage.claim:
        return
    parts, faults = _parts(claim)
    yield from faults
    if parts is not None and SCORES[parts.metric].is_metric and parts.metric not in measured(config.scoring.metrics):
        yield f"claim.metric={parts.metric} is not measured; add it to scoring.metrics, or claim something on loss"
    if parts is not None and parts.metric == "validation_loss":
        yield "claim.metric=validation_loss is of the rows that the arms are tuned on; set claim.metric=loss"
    if parts is not None and parts.metric == "forgetting_loss" and config.scoring.forgetting is None:
        yield "claim.metric=forgetting_loss is not measured: scoring.forgetting=null; name its texts"
    yield from one_of("claim.split", claim.split, ("validation", "test"))
    if claim.split == config.scoring.split:
        yield (
            f"claim.split={claim.split} is also scoring.split, so that the arms would be judged on the rows that they "
            "were tuned on; set claim.split=validation scoring.split=test"
        )
    if not claim.rates:
        yield "claim.rates=[] has no rate; write claim.rates=[1.0] to tune nothing"
    for rate in claim.rates:
        yield from above("claim.rates", rate, 0)
    if len(set(claim.rates)) < len(claim.rates):
        yield f"claim.rates={claim.rates} names a rate twice; name each once"
    yield from at_least("claim.seeds", claim.seeds, 1)
    yield from above("claim.budget.seconds", claim.budget.seconds, 0)
    yield from at_least("claim.budget.runs", claim.budget.runs, 1)
    if claim.name is not None and not re.fullmatch(r"[\w][\w.-]*", claim.name):
        yield f"claim.name={brief(claim.name)} is not the name of a folder; use letters, digits, dots and dashes"
    if config.sweep.prune is not Prune.none:
        yield (
            f"sweep.prune={config.sweep.prune.value} would end one run of a pair before the other; leave it out with "
            "stage=claim"
        )
    if config.select.split is not None:
        yield f"select.split={config.select.split} chooses among the cells of a sweep; stage=claim has claim.split"
    if config.refine.seeds is not None:
        yield f"refine.seeds={config.refine.seeds} follows a grid; stage=claim adds seeds itself"


def _parts(settings: ClaimSettings) -> tuple[Claim | None, list[str]]:
    """The claim, or what is wrong with it."""
    given = {name: getattr(settings, name) for name in _SETTINGS}
    equal_budget = settings.equal_budget
    if settings.text is not None:
        said = [f"claim.{name}" for name, value in given.items() if value is not None]
        if said:
            return None, [f"claim.text cannot be combined with {', '.join(said)}; leave out one or the other"]
        found = _TEXT.fullmatch(settings.text)
        if found is None:
            shown = brief(settings.text)
            return None, [f"claim.text={shown} is not '<arm> >, < or == <arm> on <score>'; write {EXAMPLE}"]
        given = found.groupdict()
        equal_budget = equal_budget or given["budget"] is not None
        if given["sign"] == "<":
            given["better"], given["than"] = given["than"], given["better"]
        given["relation"] = Relation.equal if given["sign"] == "==" else Relation.better
    faults = [f"claim.{name} has no value; write {EXAMPLE}" for name in ("better", "than") if not given[name]]
    if faults:
        return None, faults
    better, than = (_overrides(name, given[name], faults) for name in ("better", "than"))
    relation, metric = given["relation"] or Relation.better, given["metric"] or "loss"
    if metric not in SCORES:
        faults += one_of("claim.metric", metric, tuple(SCORES))
    margin = _margin(given["margin"], relation, faults)
    if faults:
        return None, faults
    return Claim(better, than, relation, metric, margin, equal_budget), []


def _overrides(name: str, typed: str, faults: list[str]) -> tuple[str, ...]:
    """The words of an arm; the name of a method alone chooses it."""
    try:
        words = shlex.split(typed)
    except ValueError as error:
        faults.append(f"claim.{name}={brief(typed)} cannot be split into overrides ({error}); close its quotes")
        return ()
    found = []
    for word in words:
        key = word.partition("=")[0].lstrip("+")
        if word in SHEETS:
            found.append(f"peft={word}")
        elif "=" not in word:
            faults.append(
                f"{brief(word)} in claim.{name} is neither a method nor an override; write a method's name, or "
                "overrides such as peft=lora lora.use_dora=true"
            )
        elif key in _NOT_OF_AN_ARM or key.startswith(("claim.", "hydra", "sweep.", "select.", "refine.")):
            faults.append(f"{key}= in claim.{name} belongs to both arms; write it outside the claim")
        else:
            found.append(word)
    return tuple(found)


_NOT_OF_AN_ARM = ("seed", "stage", "runs_dir", "rerun", "scoring.split")


def _margin(given: str | float | None, relation: Relation, faults: list[str]) -> float:
    try:
        margin = 0.0 if given is None else float(given)
    except ValueError:
        faults.append(f"claim.margin={given} is not a number; write within 0.01")
        return 0.0
    if not 0 <= margin < float("inf"):
        faults.append(f"claim.margin={margin:g} must be a number of at least 0")
    elif relation is Relation.equal and margin == 0:
        faults.append(
            "claim.margin is 0, and no number of runs shows that two means are exactly equal; set how far "
            "apart they may be: claim.margin=0.01, or 'lora == ia3 on loss within 0.01'"
        )
    return margin
