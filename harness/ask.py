"""Try a trained adapter: one prompt, answered before and after tuning."""

from typing import Any

from harness import record
from harness.errors import ConfigFault, DataFault, ModelFault
from harness.plan import Options, Plan, rebuild


def show(options: Options) -> None:
    """Print the answers of the base and of the tuned model to ``prompt``, by the run's own template.

    Raises:
        ConfigFault: ``run`` or ``prompt`` is missing, or no finished run has that fingerprint.
    """
    if not options.run or not options.prompt:
        raise ConfigFault("stage=generate needs run=<fingerprint> and prompt='...'; the table shows the fingerprints")
    found = find(options)
    before, after = _answers(found, options)
    print(f"prompt: {options.prompt}" + (f"\ninput:  {options.input}" if options.input else ""))
    print(f"before: {before}\nafter:  {after}")


def find(options: Options) -> dict[str, Any]:
    """The finished record whose fingerprint begins with ``run``."""
    matches = sorted(
        path.parent.name
        for path in options.runs_dir.glob(f"*/{record.NAME}")
        if path.parent.name.startswith(str(options.run))
    )
    if len(matches) != 1:
        what = f"{len(matches)} runs: {', '.join(matches)}" if matches else "no run"
        raise ConfigFault(f"run={options.run} matches {what} in {options.runs_dir}; give one whole fingerprint")
    found = record.read(options.runs_dir, matches[0])
    if found is None or found["status"] != "finished":
        status = found["status"] if found else "unreadable"
        raise ConfigFault(f"run={matches[0]} is {status}, not finished; run its command again first")
    return found


def plan_of(found: dict[str, Any]) -> Plan:
    """The plan of a record. Raises ``ModelFault`` where the base's files have changed since."""
    from harness import weights

    plan = rebuild(found["plan"])
    if weights.digest(plan.model) != plan.inputs.get("model"):
        raise ModelFault(
            f"model={plan.model.name}: its files are not those that run={found['fingerprint']} was trained on; put "
            "them back, or run its command again"
        )
    return plan


def require_same_rows(plan: Plan) -> None:
    """Raise ``DataFault`` where the rows or the held-out text have changed since the run."""
    from harness import data

    now = {"data": data.file_digest(plan.data)}
    if plan.scoring.forgetting is not None:
        now["forgetting"] = data.text_digest(plan.scoring.forgetting)
    changed = [name for name, digest in now.items() if digest != plan.inputs.get(name)]
    if changed:
        key = {"data": f"data.path={plan.data.path}", "forgetting": f"scoring.forgetting={plan.scoring.forgetting}"}
        raise DataFault(
            f"{key[changed[0]]} holds other rows than those that run={plan.fingerprint} was scored on; put them back, "
            "or run its command again"
        )


def _answers(found: dict[str, Any], options: Options) -> tuple[str, str]:
    from harness import adapters, methods, models, prompts, score, tokens

    plan = plan_of(found)
    base = models.load_base(plan.model)
    text = prompts.ask(options.prompt or "", options.input, plan.data.template, base.tokenizer)
    prompts_ids = tokens.prompt_ids([text], plan.data.template, base.tokenizer)
    equal = methods.prompt_learning(plan.method, plan.settings)
    [before] = score.generate(base.model, base.tokenizer, prompts_ids, plan.scoring.generation, equal_lengths=equal)
    fork = models.fork(base, methods.changes_base(plan.method, plan.settings))
    folder = record.path(options.runs_dir, found["fingerprint"]).parent / found["adapter"]["path"]
    model = adapters.load(fork, folder, plan)
    [after] = score.generate(model, base.tokenizer, prompts_ids, plan.scoring.generation, equal_lengths=equal)
    return before, after
