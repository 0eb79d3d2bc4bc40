"""What is trained in the comparison: model, rows, method and steps of each workload."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EVALUATED = 64  # held-out rows of the common evaluator


@dataclass(frozen=True)
class Workload:
    """One training, the same for every contestant: each row once, in any order."""

    name: str
    title: str
    model: str  # of conf/model/
    data: tuple[str, ...]  # overrides of the command
    needs: str | None  # folder below --data-dir
    steps: int
    batch: int  # rows of an optimizer step
    targets: tuple[str, ...]
    rate: float
    rank: int = 8
    alpha: int = 16

    @property
    def rows(self) -> int:
        return self.steps * self.batch

    def overrides(self, data_dir: Path) -> list[str]:
        """The rows as the command reads them; the same whatever is cut off the other splits."""
        data = [word.replace("{data}", str(data_dir)) for word in self.data]
        return [f"model={self.model}", *data, f"data.limits.train={self.rows}"]

    @property
    def key(self) -> str:
        """Changes with whatever changes the work."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


WORKLOADS = {
    each.name: each
    for each in (
        Workload(
            "tiny",
            "the embedded model on its questions",
            "tiny",
            ("data=medicine", "data.template=lesson"),  # its own template has a border inside a token
            None,
            steps=40,
            batch=8,
            targets=("q_proj", "v_proj"),
            rate=5e-3,
        ),
        Workload(
            "smollm2_e2e",
            "SmolLM2-135M on E2E: short rows",
            "smollm2_135m",
            ("data=e2e", "data.path={data}/e2e_nlg"),
            "e2e_nlg",
            steps=10,
            batch=8,
            targets=LINEAR,
            rate=1e-3,
        ),
        Workload(
            "smollm2_gsm8k",
            "SmolLM2-135M on GSM8K: mixed lengths",
            "smollm2_135m",
            ("data=gsm8k", "data.path={data}/gsm8k"),
            "gsm8k",
            steps=10,
            batch=8,
            targets=LINEAR,
            rate=1e-3,
        ),
        Workload(
            "gemma3_270m",
            "Gemma 3 270M on E2E: a vocabulary of 262,144",
            "gemma3_270m",
            ("data=e2e", "data.path={data}/e2e_nlg"),
            "e2e_nlg",
            steps=5,
            batch=8,
            targets=LINEAR,
            rate=1e-3,
        ),
    )
}

SIX = ("lora.r=4,8,16", "lora.lora_alpha=16,32")  # six cells that share nothing but base, rows and trainer
CELLS = tuple((rank, alpha) for rank in (4, 8, 16) for alpha in (16, 32))


def missing_data(workloads: Sequence[Workload], data_dir: Path) -> list[str]:
    """What to tell about workloads whose rows are not there; empty if all are."""
    return [
        f"--workloads {each.name} needs {data_dir / each.needs}, which is absent; "
        f"give its parent in --data-dir, or leave the workload out"
        for each in workloads
        if each.needs and not (data_dir / each.needs).is_dir()
    ]


@dataclass(frozen=True)
class Prepared:
    """A workload on disk: ``base/`` in transformers' format and float32, ``rows/train.jsonl`` with prompt and
    completion, ``tokens.json`` with the ids of the rows that are trained on and that are evaluated."""

    folder: Path
    tokens: int  # of text in all training rows: prompts, completions, ends
    supervised: int
    longest: int
    pad_id: int
    eos_id: int
    parameters: int

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def rows(self) -> Path:
        return self.folder / "rows"


def read_prepared(folder: Path) -> Prepared | None:
    """What ``drivers/prepare.py`` has left there; None if it has not ended there."""
    file = folder / "prepared.json"
    if not file.exists():
        return None
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return Prepared(folder, **values)
