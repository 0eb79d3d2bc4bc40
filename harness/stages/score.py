"""stage=score: score an exported model and compare it with the run it came from."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import ModelSource, Quantization
from harness.errors import ConfigFault, ModelFault
from harness.plan.from_record import find_record, plan_of_record, require_same_rows
from harness.plan.spec import Options, Plan
from harness.record import provenance, store
from harness.record.files import write_json
from harness.stages.export import note_name

if TYPE_CHECKING:
    from harness.scoring.score import Scores


def score_export(options: Options) -> None:
    """Score the exported model by the run's own protocol; print both scores, and write them into the run's folder.

    Raises:
        ConfigFault: a setting is missing, or no finished run has that fingerprint.
        ModelFault: the folder is not an export of this run.
        DataFault: the rows are not those that the run was scored on.
    """
    if not options.run or not options.export.dir:
        raise ConfigFault("stage=score needs run=<fingerprint> and export.dir=<folder written by stage=export>")
    record = find_record(options)
    plan = plan_of_record(record)
    folder = Path(options.export.dir).expanduser().absolute()
    made = _read_note(folder, plan)
    scores, base_bytes = _scored(plan, folder)
    content: dict[str, Any] = {
        "fingerprint": plan.fingerprint,
        "export": made | {"dir": str(folder)},
        "scores": {"before": record["scores"]["before"], "adapter": record["scores"]["after"], "export": scores.values},
        "signatures": scores.signatures,
        "memory_bytes": {"base": base_bytes},
        "code": provenance.code_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    place = store.record_path(options.runs_dir, record["fingerprint"]).parent / f"export-{made['quantization']}.json"
    write_json(place, content)
    _show(content["scores"], f"{plan.fingerprint} ({plan.method}), export.quantization={made['quantization']}")
    print(place)


def _scored(plan: Plan, folder: Path) -> "tuple[Scores, int]":
    """Scores of the folder's model by the plan's protocol, and the bytes of its weights."""
    from harness.models import quantization
    from harness.models.base import load_base
    from harness.pipeline.cache import ProcessCache
    from harness.scoring import score as scoring_score
    from harness.scoring.batching import needs_equal_lengths

    require_same_rows(plan)
    model = replace(
        plan.model,
        source=ModelSource.folder,
        path=str(folder),
        quantization=Quantization.none,  # the folder says how it is stored
        prune=0.0,
        packages=[],
        sha256=None,
        revision=None,
    )
    base = load_base(model)
    rows = ProcessCache().rows(plan, base)
    scores = scoring_score.score(
        base.model,
        base.tokenizer,
        rows.splits[plan.scoring.split],
        rows.held_out,
        plan.scoring,
        stops=rows.stops,
        equal_lengths=needs_equal_lengths(base.model),
        seed=plan.seed,
    )
    return scores, quantization.storage_bytes(base.model)


def _read_note(folder: Path, plan: Plan) -> dict[str, Any]:
    """What the export says about itself. Raises ``ModelFault`` if it is not an export, or of another run."""
    try:
        note = json.loads((folder / note_name()).read_text(encoding="utf-8"))
        made, owner = dict(note["export"]), note["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFault(
            f"export.dir={folder} is not an export of the harness ({error}); write one with stage=export"
        ) from error
    if owner != plan.fingerprint:
        raise ModelFault(
            f"export.dir={folder} is an export of run {owner}, not of {plan.fingerprint}; name the folder of its export"
        )
    return made


def _show(scores: dict[str, dict[str, float]], title: str) -> None:
    from rich.console import Console

    from harness.report.plain_table import plain_table

    table = plain_table(title)
    for column in ("score", *scores):
        table.add_column(column, justify="left" if column == "score" else "right")
    for name in scores["export"]:
        table.add_row(name, *(f"{values[name]:.4f}" if name in values else "-" for values in scores.values()))
    Console(file=sys.stdout).print(table)
