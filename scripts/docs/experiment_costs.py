#!/usr/bin/env python
"""Write the table of docs/experiments.md: how many runs each experiment has at scale=cpu, and how long they take.

python scripts/docs/experiment_costs.py           # rewrites the section between the markers
python scripts/docs/experiment_costs.py --check   # writes nothing, exits with 1 if it is stale

Counted from the files alone; the verdicts are those of docs/ablations/. The forecast is for SmolLM2-135M in float32 on
two cores, from measured rates; what is assumed rather than measured is named below. ``stage=plan`` and the first run's
``left: about`` know better.
"""

import itertools
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sections import row, update

from harness.estimate.duration import in_words

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/experiments.md"
LONGEST_S = 4 * 3600

TOKENS_OF_ROW = {"e2e": 93, "gsm8k": 193, "snips": 68, "medicine": 200}  # prompt and completion; medicine is a guess
TRAINED_PER_S = 275
SCORED_PER_S = 3 * TRAINED_PER_S  # assumed: no backward pass
NEW_TOKEN_S = 0.6  # assumed: of up to 64 answers at once
START_S = 5
SLOWER = {"lora.use_dora=true": 1.5, "model.quantization=nf4": 2.5}  # assumed, for an arm with this override


@dataclass(frozen=True)
class Cost:
    """What an experiment takes at scale=cpu."""

    grid: int  # runs of the grid
    more: int  # at most so many runs around the best rates
    seconds: float


def main() -> int:
    """Rewrite the section, or report that it is stale."""
    return update(ROOT, ((PAGE, "costs", table()),), "scripts/docs/experiment_costs.py", __doc__)


def table() -> Iterator[str]:
    """Lines of the table: one row for each experiment of a paper."""
    yield row("experiment", "grid", "around the best rates", "forecast", "run here")
    yield "|---|--:|--:|--:|---|"
    for name in papers():
        cost = cost_of(name)
        more = f"at most {cost.more}" if cost.more else "–"
        yield row(f"`{name}`", str(cost.grid), more, in_words(cost.seconds), answer_of(name))


def answer_of(name: str) -> str:
    """A link to the page of the experiment, which is the verdict; a dash if it has none."""
    page = ROOT / "docs" / "ablations" / f"{name}.md"
    if not page.is_file():
        return "–"
    found = re.search(r"^\*\*(?:The shape )?([^.:*]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        sys.exit(f"{page} has no verdict; write it by scripts/docs/ablation.py")
    return f"[{found[1].lower()}](ablations/{name}.md)"


def papers() -> list[str]:
    """Names of the experiments that check a paper."""
    files = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
    return [file.stem for file in files if "paper" in _read(file)]


def cost_of(name: str) -> Cost:
    """The cost of an experiment at scale=cpu."""
    file = _read(ROOT / "conf" / "experiment" / f"{name}.yaml")
    level = _read(ROOT / "conf" / "config.yaml")["levels"]["cpu"] | file["levels"]["cpu"]
    grid = file["hydra"]["sweeper"]["params"] | level
    axes = {key: values_of(value) for key, value in grid.items()}
    arms = [str(arm) for arm in file["paper"].get("arms", {}).values()] or [""]
    seeds = int(level.get("refine.seeds") or 0)
    around = min(len(axes.get("trainer.learning_rate", ())), 3)
    settings = [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
    first_rate = axes.get("trainer.learning_rate", ("",))[0]
    # A setting with each rate of the grid, then with fresh seeds at the best rate and those beside it.
    alike = [each for each in settings if each.get("trainer.learning_rate", "") == first_rate] if seeds else []
    seconds = sum(_seconds(each, arm) for arm in arms for each in settings)
    seconds += sum(_seconds(each, arm) * around * seeds for arm in arms for each in alike)
    return Cost(len(arms) * len(settings), len(arms) * len(alike) * around * seeds, seconds)


def values_of(value: Any) -> list[str]:
    """The values that a sweep takes from this text: ``1,2``, ``range(0,3)``; a list in brackets is one value."""
    text = str(value)
    if text.startswith("range("):
        return [str(each) for each in range(*map(int, text[6:-1].split(",")))]
    if isinstance(value, list) or text.startswith(("[", "{")):
        return [text]
    return text.split(",")


def _seconds(setting: Mapping[str, str], arm: str) -> float:
    """One run: its steps, the validation loss, the loss of the test rows and their answers."""
    trainer = _read(ROOT / "conf" / "trainer" / "default.yaml")
    trainer |= _read(ROOT / "conf" / "trainer" / f"{setting.get('trainer', 'default')}.yaml")
    data = setting.get("data", "medicine")

    def number(key: str) -> float:
        given = setting.get(f"trainer.{key}", trainer[key])
        return 0.0 if given in (None, "None") else float(given)

    per_step = number("batch_size") * number("gradient_accumulation_steps")
    trained = number("max_steps") * per_step or number("epochs") * float(setting["data.limits.train"])
    test = float(setting["data.limits.test"])
    scored = number("evaluations") * float(setting["data.limits.validation"]) + test
    tokens = TOKENS_OF_ROW[data]
    seconds = trained * tokens / TRAINED_PER_S + scored * tokens / SCORED_PER_S + START_S
    if setting.get("scoring.metrics") != "[]":
        content = _read(ROOT / "conf" / "data" / f"{data}.yaml")
        answer = float(setting.get("scoring.generation.max_new_tokens", content["max_new_tokens"]))
        seconds += math.ceil(test / 64) * answer * NEW_TOKEN_S
    return seconds * max((factor for word, factor in SLOWER.items() if word in arm), default=1.0)


_known: dict[Path, dict[str, Any]] = {}


def _read(file: Path) -> dict[str, Any]:
    if file not in _known:
        _known[file] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(_known[file])


if __name__ == "__main__":
    sys.exit(main())
