"""Plans of earlier runs, read from their records."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness.data.sources import data_sha256, text_sha256
from harness.errors import ConfigFault, DataFault, ModelFault
from harness.frozen import freeze
from harness.models import sources as model_sources
from harness.plan.extensions import changed_code
from harness.plan.spec import PUBLISHED_TEMPLATES, Options, Plan, plan_from_dict
from harness.record import store
from harness.record.redact import REDACTED
from harness.runtime.accelerator import accelerator
from harness.runtime.terminal import first_of

LISTED = 8  # runs that an error names


def find_record(options: Options) -> dict[str, Any]:
    """The finished record whose fingerprint starts with ``run``.

    Raises:
        ConfigFault: no run or several runs match, or the run is not finished.
    """
    known = sorted(path.parent.name for path in options.runs_dir.glob(f"*/{store.RECORD_NAME}"))
    matches = [name for name in known if name.startswith(str(options.run))]
    if len(matches) != 1:
        what = f"{len(matches)} runs: {', '.join(matches)}" if matches else "no run"
        there = "" if matches or not known else f" (it has {first_of(known, LISTED)})"
        raise ConfigFault(
            f"run={options.run} matches {what} in {options.runs_dir}{there}; give the whole fingerprint of one"
        )
    record = store.read_record(options.runs_dir, matches[0])
    if record is None or record["status"] != "finished":
        status = record["status"] if record else "unreadable"
        raise ConfigFault(f"run={matches[0]} is {status}, not finished; run its command again first")
    if record.get("external"):
        raise ConfigFault(
            f"run={matches[0]} is the adapter {record['external']['name']} from elsewhere, of which this folder holds "
            "the scores alone; name it with adapter_path instead of run"
        )
    if record.get("foreign"):
        raise ConfigFault(
            f"run={matches[0]} is a result of {record['foreign']['source']}, imported without a model; name a run of "
            "your own"
        )
    return record


def plan_of_record(record: dict[str, Any]) -> Plan:
    """The plan of a record.

    Raises:
        ConfigFault: another version of the harness wrote it, it has lost a secret that the plan needs, or code of the
            user's own that it names is gone or has changed.
        ModelFault: the files of the base model have changed since.
    """
    hidden = [f"{key}={value}" for key, value in _texts(record["plan"]) if REDACTED.search(value)]
    hidden = [each for each in hidden if not each.partition("=")[0].endswith("name")]
    if hidden:
        raise ConfigFault(
            f"run={record['fingerprint']}: its record has {', '.join(hidden)}, where its command had a secret, so that "
            "its plan cannot be read from it; run it again with a path or name that holds no secret"
        )
    kept = dict(record["plan"])
    if "stop_ids" not in record["inferred"]:  # from before the border between prompt and answer followed the tokenizer
        template = PUBLISHED_TEMPLATES.get(kept["data"]["template"], kept["data"]["template"])
        kept["data"] = kept["data"] | {"template": template}
    plan = plan_from_dict(kept, record["fingerprint"])
    plan = replace(plan, model=freeze(replace(plan.model, device=_present(plan.model.device))))
    plan = plan if plan.fingerprint == record["fingerprint"] else replace(plan, known_as=record["fingerprint"])
    if changed := changed_code(plan):
        raise ConfigFault(f"run={record['fingerprint']}: {'; '.join(changed)}")
    known = plan.inputs.get("model")
    if known not in (model_sources.weights_hash(plan.model), model_sources.former_hash(plan.model)):
        raise ModelFault(
            f"model={plan.model.name}: its files have changed since run={record['fingerprint']} was trained; restore "
            "them, or run its command again"
        )
    return plan


def _present(device: str) -> str:
    """The run's device, or ``auto`` if this machine has no such one: what is read here may have run elsewhere."""
    found = accelerator()
    return "auto" if found is not None and found.kind == "cpu" and device.startswith("cuda") else device


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a plan, by dotted name."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item, key)
    elif isinstance(node, str):
        yield key, node


def require_same_rows(plan: Plan) -> None:
    """Check that the rows, the held-out text and the metrics of the user's own are those of the run.

    Raises:
        DataFault: they have changed since.
    """
    if changed := changed_code(plan, metrics=True):
        raise DataFault(f"run={plan.fingerprint}: {'; '.join(changed)}")
    now = {"data": data_sha256(plan.data)}
    if plan.scoring.forgetting is not None:
        now["forgetting"] = text_sha256(plan.scoring.forgetting)
    changed = [name for name, digest in now.items() if digest != plan.inputs.get(name)]
    if changed:
        key = {"data": f"data.path={plan.data.path}", "forgetting": f"scoring.forgetting={plan.scoring.forgetting}"}
        raise DataFault(
            f"{key[changed[0]]}: its rows have changed since run={plan.fingerprint} was scored; restore them, or run "
            "its command again"
        )
