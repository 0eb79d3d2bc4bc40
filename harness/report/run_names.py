"""The name of a run in a tracker: its method and the overrides that have an effect on it."""

from collections.abc import Sequence

from harness.config.schema import SHEETS
from harness.plan.spec import Plan, effective_settings
from harness.report.cells import setting_of, split_overrides


def run_name(plan: Plan, overrides: str | Sequence[str]) -> str:
    """``lora r=8 seed=1`` for ``peft=lora lora.r=8 oft.eps=1 seed=1``.

    Args:
        overrides: of the cell; they are short where the plan is long.
    """
    words = [word for word in split_overrides(overrides) if _has_effect(plan, word)]
    kind = plan.settings.get("type") if plan.method == "library" else None
    return " ".join(filter(None, (f"library:{kind}" if kind else plan.method, setting_of(words, plan.method))))


def _has_effect(plan: Plan, word: str) -> bool:
    """Whether the override is more than an idle setting; what is hashed or named, such as paths, counts as one."""
    key, equals, _ = word.lstrip("+~").partition("=")
    group, _, rest = key.partition(".")
    if not equals:  # the bare name of a method, which stands for a cell without overrides
        return word != plan.method
    if group not in SHEETS and group != "trainer":
        return True
    used = effective_settings(plan.as_dict())
    name = rest.split(".")[0]
    if group == "trainer":
        return name in ("", "learning_rate", "teacher") or name in used["trainer"]
    # The method's own rate gives way to one for all methods.
    return group == plan.method and (name == "learning_rate" or name in used["settings"])
