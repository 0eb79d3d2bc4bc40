"""From a composed config to a plan and the options of the command.

OmegaConf ends here: ``read_config`` turns the ``DictConfig`` into dataclasses, and nothing downstream uses it.
"""

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import schema
from harness.config.library_errors import omegaconf_message
from harness.errors import ConfigFault, DataFault, raise_together
from harness.frozen import freeze
from harness.plan.checks.config import config_faults, method_faults
from harness.plan.checks.sweeps import has_budget
from harness.plan.devices import dtype_on
from harness.plan.effective import in_canonical_order
from harness.plan.inputs import input_digests
from harness.plan.rates import learning_rate
from harness.plan.resolve import resolved_data, resolved_model
from harness.plan.spec import BudgetFit, Options, Plan, plain
from harness.scoring.catalog import AUTO, TOKENIZE_OF_SCRIPT

Size = Callable[[Plan, schema.Budget], BudgetFit]  # meets a budget


def read_config(composed: DictConfig, here: bool = True, size: Size | None = None) -> tuple[Plan, Options]:
    """The one boundary between configuration and code.

    Args:
        here: the plan is run on this machine, so that what ``auto`` means can be told.
        size: meets ``budget``, which takes the model's architecture to count; None: no budget may be given.

    Raises:
        ConfigFault: unknown key, wrong type, missing value, or settings that contradict each other; all
            faults that can be seen without weights are listed together.
    """
    config = _typed(composed)
    raise_together(config_faults(config))
    plan, fit = _plan(config, here), None
    if has_budget(config):
        if size is None:
            raise ConfigFault("budget.* sets sizes of methods, which this command does not count; leave it out")
        fit = size(plan, config.budget)
        plan = _sized(plan, config, fit)
    return plan, _options(config, fit)


def _sized(plan: Plan, config: schema.Config, fit: BudgetFit) -> Plan:
    """The plan at the size that meets the budget; the method's rule for the learning rate may depend on it."""
    sheet = getattr(config, plan.method)
    for key, value in fit.settings.items():
        setattr(sheet, key, value)
    raise_together(method_faults(config))
    return replace(plan, settings=MappingProxyType(_settings(config)), learning_rate=learning_rate(config).value)


def _settings(config: schema.Config) -> dict[str, Any]:
    """The sheet of the run's method without its learning rate."""
    sheet = in_canonical_order(plain(getattr(config, config.peft.method)))
    sheet.pop("learning_rate")
    return sheet


def _typed(composed: DictConfig) -> schema.Config:
    """The composed values as dataclasses; unknown keys such as ``++stray=1`` are refused."""
    raw = OmegaConf.to_container(composed, resolve=False)
    deleted = [key for key in get_type_hints(schema.Config) if key not in composed]
    missing = deleted + [key for key, value in _leaves(raw) if value == "???"]
    raise_together([f"{key} has no value; set it on the command line: {key}=..." for key in missing])
    try:
        if has_declared_types(composed, schema.Config):
            return OmegaConf.to_object(composed)  # type: ignore[return-value]
        # A fresh schema refuses the keys that ++ added to the composed one. Twenty times slower.
        values = OmegaConf.to_container(composed, resolve=True)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema.Config), values))
    except OmegaConfBaseException as error:
        raise ConfigFault(omegaconf_message(error)) from error
    if not isinstance(config, schema.Config):
        raise ConfigFault(f"the composed configuration is a {type(config).__name__}, not a harness config")
    return config


def has_declared_types(node: Any, kind: type) -> bool:
    """Whether this node and those below it have the schema's types and keys: each value was checked when it was set."""
    if OmegaConf.get_type(node) is not kind:
        return False
    kinds = get_type_hints(kind)
    return set(node) == set(kinds) and all(
        has_declared_types(node._get_node(name), below)
        for name, below in kinds.items()
        if isinstance(below, type) and is_dataclass(below)
    )


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _plan(config: schema.Config, here: bool) -> Plan:
    inputs = input_digests(config)
    _resolve(config, inputs.get("data"))
    return Plan(
        method=config.peft.method,
        settings=MappingProxyType(_settings(config)),
        learning_rate=learning_rate(config).value,
        model=freeze(resolved_model(config, here)),
        data=freeze(resolved_data(config.data)),
        trainer=freeze(config.trainer),
        scoring=freeze(config.scoring),
        seed=config.seed,
        inputs=MappingProxyType(inputs),
    )


def _resolve(config: schema.Config, data_sha256: str | None) -> None:
    """Put what follows from other settings in its place, so that the plan says what is run.

    The published objective has the published prompt; ``scoring.tokenize=auto`` follows the data's outputs.
    """
    if config.trainer.objective is schema.Objective.lesson:
        config.data.template = schema.Template.lesson_exact
    if config.scoring.tokenize == AUTO:
        config.scoring.tokenize = _tokenize_of_data(config, data_sha256)


def _tokenize_of_data(config: schema.Config, data_sha256: str | None) -> str:
    """The tokenizer for the script of the data's outputs.

    ``auto`` stays for rows on the hub that this command need not or cannot read; scoring then looks at the references.
    """
    from harness.data.language import output_script

    on_hub = data_sha256 is None
    if on_hub and config.stage not in (schema.Stage.run, schema.Stage.plan):
        return AUTO
    try:
        return TOKENIZE_OF_SCRIPT[output_script(config.data, data_sha256)]
    except DataFault:
        if on_hub:
            return AUTO
        raise


def _options(config: schema.Config, budget: BudgetFit | None = None) -> Options:
    return Options(
        stage=config.stage,
        runs_dir=Path(config.runs_dir).expanduser().absolute(),
        rerun=config.rerun,
        keep=config.keep,
        run=config.run,
        adapter_paths=tuple([paths] if isinstance(paths := config.adapter_path, str) else paths or ()),
        prompt=config.prompt,
        input=config.input or "",
        note=config.note,
        tags=tuple(config.tags),
        tracker=freeze(config.tracker),
        export=freeze(config.export),
        push=freeze(config.push),
        diff=freeze(config.diff),
        archive=freeze(config.archive),
        import_results=freeze(config.import_results),
        bundle=freeze(config.bundle),
        chat=freeze(config.chat),
        serve=freeze(config.serve),
        confirm=config.confirm,
        report=freeze(config.report),
        select=freeze(config.select),
        refine=freeze(config.refine),
        claim=freeze(config.claim),
        plan=freeze(config.plan),
        planned_dtype=dtype_on(config.plan.device, config.model.dtype.value),
        threads=config.trainer.threads,
        checkpoint_minutes=config.trainer.checkpoint_minutes,
        checkpoint_steps=config.trainer.checkpoint_steps,
        halve_on_oom=config.trainer.on_oom is schema.OnOom.halve,
        sweep_name=config.sweep.name,
        max_failures=config.sweep.max_failures,
        max_hours=config.sweep.max_hours,
        prune=config.sweep.prune,
        halving=freeze(config.sweep.halving),
        pause_after=config.sweep.pause_after,
        retry=config.sweep.retry,
        reuse=config.sweep.reuse,
        rate_rule=learning_rate(config).rule,
        watch=config.sweep.watch,
        budget=budget,
        scale=config.scale,
        paper=freeze(config.paper),
    )
