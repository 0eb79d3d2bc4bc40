"""Plans of earlier runs, read from their records."""

from typing import Any

from harness.errors import ConfigFault, DataFault, ModelFault
from harness.plan.spec import Options, Plan, plan_from_dict
from harness.record import store


def find_record(options: Options) -> dict[str, Any]:
    """The finished record whose fingerprint begins with ``run``."""
    matches = sorted(
        path.parent.name
        for path in options.runs_dir.glob(f"*/{store.RECORD_NAME}")
        if path.parent.name.startswith(str(options.run))
    )
    if len(matches) != 1:
        what = f"{len(matches)} runs: {', '.join(matches)}" if matches else "no run"
        raise ConfigFault(f"run={options.run} matches {what} in {options.runs_dir}; give one whole fingerprint")
    found = store.read_record(options.runs_dir, matches[0])
    if found is None or found["status"] != "finished":
        status = found["status"] if found else "unreadable"
        raise ConfigFault(f"run={matches[0]} is {status}, not finished; run its command again first")
    return found


def plan_of_record(found: dict[str, Any]) -> Plan:
    """The plan of a record. Raises ``ModelFault`` where the base's files have changed since."""
    from harness.models import sources as model_sources

    plan = plan_from_dict(found["plan"])
    if model_sources.weights_hash(plan.model) != plan.inputs.get("model"):
        raise ModelFault(
            f"model={plan.model.name}: its files are not those that run={found['fingerprint']} was trained on; put "
            "them back, or run its command again"
        )
    return plan


def require_same_rows(plan: Plan) -> None:
    """Raise ``DataFault`` where the rows or the held-out text have changed since the run."""
    from harness.data.sources import data_sha256, text_sha256

    now = {"data": data_sha256(plan.data)}
    if plan.scoring.forgetting is not None:
        now["forgetting"] = text_sha256(plan.scoring.forgetting)
    changed = [name for name, digest in now.items() if digest != plan.inputs.get(name)]
    if changed:
        key = {"data": f"data.path={plan.data.path}", "forgetting": f"scoring.forgetting={plan.scoring.forgetting}"}
        raise DataFault(
            f"{key[changed[0]]} holds other rows than those that run={plan.fingerprint} was scored on; put them back, "
            "or run its command again"
        )
