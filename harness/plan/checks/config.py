"""Faults of a typed configuration that can be found without weights or rows.

Each check yields sentences that name key, value and remedy. The types of all values are already right.
"""

from harness.config.schema import SHEETS, Config
from harness.data.checks import data_faults
from harness.methods import fields
from harness.methods.registry import METHODS
from harness.plan import claims
from harness.plan.checks.files import file_faults
from harness.plan.checks.model import model_faults
from harness.plan.checks.scoring import scoring_faults
from harness.plan.checks.stages import report_faults, stage_faults, tracking_faults
from harness.plan.checks.sweeps import budget_faults, refine_faults, select_faults, sweep_faults
from harness.plan.checks.training import trainer_faults
from harness.plan.values import value_faults


def config_faults(config: Config) -> list[str]:
    """Every fault of this configuration, in the order of its groups."""
    if config.peft.method not in SHEETS:
        return [f"peft.method={config.peft.method} is unknown; choose one of {', '.join(SHEETS)}"]
    sheet = getattr(config, config.peft.method)
    used = {key: node for key, node in vars(config).items() if key not in SHEETS} | {config.peft.method: sheet}
    bad_values = dict(fault for key, node in used.items() for fault in value_faults(key, node))
    parts = (
        model_faults(config),
        data_faults(config.data),
        trainer_faults(config),
        scoring_faults(config),
        tracking_faults(config),
        report_faults(config),
        select_faults(config),
        refine_faults(config),
        budget_faults(config),
        claims.claim_faults(config),
        stage_faults(config),
        file_faults(config),
    )
    found = [fault for part in parts for fault in part]
    found += sweep_faults(config)
    found += method_faults(config)
    # A value that is not a finite number needs no second message about its size.
    rest = [fault for fault in found if fault.partition("=")[0] not in bad_values]
    return [*bad_values.values(), *dict.fromkeys(rest)]


def method_faults(config: Config) -> list[str]:
    """Faults of the method's own settings, alone and with each other."""
    sheet = getattr(config, config.peft.method)
    return [*fields.field_faults(config.peft.method, sheet), *METHODS[config.peft.method].check(sheet)]
