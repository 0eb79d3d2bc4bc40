"""stage=score: an exported model beside the run that it came from; or adapters from elsewhere, beside each other."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
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
    from harness.pipeline.cache import ProcessCache
    from harness.scoring.score import Scores


def score_adapters(plan: Plan, options: Options, cache: "ProcessCache") -> None:
    """Score the adapters of ``adapter_path`` by the protocol of this command; each leaves a record, as a run does.

    Raises:
        ModelFault: one of them cannot be read, or does not fit the base.
    """
    from harness.models.peft_adapters import find_adapter
    from harness.pipeline.adapter_scores import score_adapter

    found = [find_adapter(path) for path in options.adapter_paths]  # all, before the first is scored
    records = [score_adapter(plan, adapter, options, cache) for adapter in found]
    table = {"before": records[0]["scores"]["before"]}
    for record in records:
        table[f"{record['external']['name']} {record['fingerprint'][:4]}"] = record["scores"]["after"]
    _show(table, f"adapters on {plan.model.name}, {plan.data.name}, {plan.scoring.split} split")
    for line in paired_lines(options.runs_dir, records):
        print(line)
    runs = ",".join(dict.fromkeys(record["fingerprint"] for record in records))
    print(f"{options.runs_dir}: recorded as {runs}; stage=report shows them beside the runs of the same protocol")


def paired_lines(runs_dir: Path, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How far each adapter is from the first, row by row, for scores that are means over rows."""
    first, *others = records
    here = _row_scores(runs_dir, first)
    for other in others:
        there = _row_scores(runs_dir, other)
        for name in sorted(here.keys() & there.keys()):
            pairs = list(zip(here[name], there[name], strict=True))
            mean, half = paired_difference(pairs)
            yield (
                f"{name}: {other['external']['name']} minus {first['external']['name']} is {mean:+.2f} \u00b1 "
                f"{half:.2f} (95 % interval over {len(pairs)} rows; other training seeds are not in it)"
            )


def paired_difference(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of second minus first, and the half-width of its 95 % interval by the normal approximation."""
    differences = [there - here for here, there in pairs]
    mean = math.fsum(differences) / len(differences)
    if len(differences) < 2:
        return mean, math.inf
    variance = math.fsum((each - mean) ** 2 for each in differences) / (len(differences) - 1)
    return mean, 1.96 * math.sqrt(variance / len(differences))


def _row_scores(runs_dir: Path, record: Mapping[str, Any]) -> dict[str, list[float]]:
    """Of each score that is a mean over rows, its values after training, in the order of the rows."""
    if record["predictions"] is None:
        return {}
    file = store.record_path(runs_dir, record["fingerprint"]).parent / record["predictions"]
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    names = list(rows[0].get("scores", {}).get("after", {})) if rows else []
    return {name: [row["scores"]["after"][name] for row in rows] for name in names}


def score_export(options: Options) -> None:
    """Score the exported model by the run's own protocol; print both scores, and write them into the run's folder.

    Raises:
        ConfigFault: a setting is missing, or no finished run has that fingerprint.
        ModelFault: the folder is not an export of this run.
        DataFault: the rows are not those that the run was scored on.
    """
    if not options.run or not options.export.dir:
        raise ConfigFault(
            "stage=score needs run=<fingerprint> and export.dir=<folder written by stage=export>; or adapter_path="
            "<folder or hub name> for an adapter from elsewhere"
        )
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
    for name in list(scores.values())[-1]:
        table.add_row(name, *(f"{values[name]:.4f}" if name in values else "-" for values in scores.values()))
    Console(file=sys.stdout).print(table)
