"""Published results as records: the result files of PEFT's ``method_comparison``, of any version.

Such a record is marked by ``foreign``. It holds what the file states and nothing else; its plan is not one that could
be run again.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.errors import DataFault
from harness.methods.library import BOOKKEEPING, method_of_type
from harness.record.upgrade import SCHEMA_VERSION

SOURCE = "PEFT method_comparison"

# What its scores are called here; values between 0 and 1 become percent.
SCORE_NAMES = {"test accuracy": "final_number"}
AS_PERCENT = frozenset(SCORE_NAMES)

# Figures of the last line of metrics that are no score.
NOT_A_SCORE = re.compile(r"step|epoch|train |valid |eval |tokens|mem |elapsed|samples|time")

# Keys of the versions of the format: CUDA alone at first, any accelerator later.
PEAKS = ("accelerator_memory_max", "cuda_memory_max")
DEVICES = ("accelerator", "gpu")

UNSTATED = "not stated (torch's AdamW: 0.01)"  # of a weight decay that the file leaves to the optimizer


def record_of_file(file: Path) -> dict[str, Any]:
    """The record of one result file.

    Raises:
        DataFault: it cannot be read, is no result file, or holds no finished run.
    """
    try:
        content = file.read_bytes()
        result = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DataFault(f"{file} cannot be read as JSON ({error})") from error
    if not is_result(result):
        raise DataFault(f"{file} is not a result file of {SOURCE}: it lacks run_info, train_info or metrics")
    status = result["train_info"].get("status", "success")
    if status != "success":
        why = result["run_info"].get("error_msg") or "no reason given"
        raise DataFault(f"{file} holds no result: status {status} ({why})")
    try:
        return _record(result, hashlib.sha256(content).hexdigest(), file.name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataFault(
            f"{file} is not a result file that can be read ({type(error).__name__}: {error}); name another file"
        ) from error


def is_result(content: Any) -> bool:
    """Whether a JSON value has the outline of a result file."""
    if not isinstance(content, dict):
        return False
    run, train = content.get("run_info"), content.get("train_info")
    return isinstance(run, dict) and isinstance(train, dict) and isinstance(train.get("metrics"), list)


def _record(result: Mapping[str, Any], sha256: str, name: str) -> dict[str, Any]:
    run, train = result["run_info"], result["train_info"]
    meta = result.get("meta_info") or {}
    packages, system = meta.get("package_info") or {}, meta.get("system_info") or {}
    plan = _plan(run, meta)
    scores = _scores(train["metrics"])
    if not scores:
        raise ValueError("no test score")
    started = datetime.fromisoformat(run["created_at"]).astimezone(UTC)
    finished = started + timedelta(seconds=float(run.get("total_time") or 0.0))
    trainable, total = train.get("num_trainable_params"), train.get("num_total_params")
    seconds, last = train.get("train_time"), train["metrics"][-1]
    tokens = last.get("train total tokens")
    commit = packages.get("peft-commit-hash")
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": sha256[:12],
        "status": "finished",
        "method": plan["method"],
        "attempt": 1,
        "created": _time(started),
        "started": _time(started),
        "finished": _time(finished),
        "plan": plan,
        "code": {
            "version": sha256[:16],
            "harness": SOURCE,
            "git_commit": commit if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40,64}", commit) else None,
            "git_dirty": None,
        },
        "versions": {"python": "unknown", "harness": SOURCE} | _versions(packages),
        "device": {
            "type": "cuda" if PEAKS[1] in train else "accelerator",
            "name": str(_first(system, DEVICES) or "unknown"),
            "platform": str(system.get("system") or "unknown"),
        },
        "owner": {"host": "elsewhere", "pid": 1},
        "seeds": {"seed": plan["seed"]},
        "inferred": {"dtype": plan["model"]["dtype"]},
        "notes": [f"imported from {name}, a result of {SOURCE}"],
        "audit": {},
        "rows": {},
        "parameters": {
            "total": total,
            "trainable": trainable,
            "share": trainable / total if trainable is not None and total else 0.0,
        },
        "adapter": None,
        "times_s": {"train": seconds},
        "memory_bytes": {"train_peak": _first(train, PEAKS), "kind": None},
        "training": {
            "optimizer_steps": int(last.get("step") or plan["trainer"]["max_steps"] or 0),
            "tokens": tokens or 0,
            "tokens_per_s": tokens / seconds if tokens and seconds else None,
            "best_step": None,
            "curve": _curve(train["metrics"]),
            "validation": [],
        },
        "scores": {"before": {}, "after": scores, "signatures": dict.fromkeys(scores, SOURCE), "cut": {}},
        "predictions": None,
        "tracker": None,
        "error": None,
        "foreign": {
            "source": SOURCE,
            "file": name,
            "sha256": sha256,
            "experiment": str(run.get("experiment_name") or name),
            "branch": run.get("peft_branch"),
            "data": sorted(meta.get("dataset_info") or {}),
            "adapter_bytes": train.get("file_size"),
        },
    }


def _plan(run: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says about the experiment, under the names that plans have."""
    train, peft = run["train_config"], run.get("peft_config")
    optimizer = train.get("optimizer_kwargs") or {}
    generation = train.get("generation_kwargs") or {}
    kind = str((peft or {}).get("peft_type") or "full").rpartition(".")[2].lower()
    data = sorted(meta.get("dataset_info") or {})
    model = train["model_id"]
    return {
        "method": method_of_type(kind),
        "settings": {key: value for key, value in (peft or {}).items() if key not in BOOKKEEPING},
        "learning_rate": optimizer.get("lr"),
        "model": {
            "name": model,
            "path": model,
            "revision": (meta.get("model_info") or {}).get("sha"),
            "dtype": str(train.get("dtype") or "unknown"),
        },
        "data": {
            "name": " and ".join(data) or "unknown data",
            "template": train.get("query_template"),
            "max_tokens": train.get("max_seq_length"),
        },
        "trainer": {
            "max_steps": train.get("max_steps"),
            "batch_size": train.get("batch_size"),
            "schedule": train.get("lr_scheduler"),
            "optimizer": train.get("optimizer_type"),
            "weight_decay": optimizer.get("weight_decay", UNSTATED),
            "max_grad_norm": train.get("grad_norm_clip"),
        },
        "scoring": {"split": "test", "generation": {"max_new_tokens": generation.get("max_new_tokens")}},
        "seed": int(train.get("seed") or 0),
        "inputs": {},
    }


def _scores(metrics: list[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of the last line that has a test score: accuracy in percent, others as they are."""
    tested = [line for line in metrics if any(key.startswith("test ") for key in line)]
    if not tested:
        return {}
    found = {}
    for key, value in tested[-1].items():
        if NOT_A_SCORE.match(key) or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        name = SCORE_NAMES.get(key, key.replace(" ", "_"))
        found[name] = 100.0 * value if key in AS_PERCENT else float(value)
    return found


def _curve(metrics: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The training loss by step; the line with the test score repeats the last one."""
    lines = [line for line in metrics if not any(key.startswith("test ") for key in line)]
    return [
        {"step": line["step"], "loss": line["train loss"]} for line in lines if "step" in line and "train loss" in line
    ]


def _versions(packages: Mapping[str, Any]) -> dict[str, str]:
    ending = "-version"
    return {key.removesuffix(ending): str(value) for key, value in packages.items() if key.endswith(ending) and value}


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
