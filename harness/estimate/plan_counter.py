"""What plans would train: by formula where one is exact, else from the model built on the meta device."""

from harness.estimate import quick
from harness.models.counts import Counts
from harness.plan.spec import Plan, digest


class PlanCounter:
    """Counts plans; those of a sweep over seeds, rates or data have one count, which is made once."""

    def __init__(self) -> None:
        self._counted: dict[str, Counts] = {}

    def count(self, plan: Plan) -> Counts:
        """What this plan would train, from the model's configuration only.

        Raises:
            ModelFault: the configuration is not available, the method does not fit the model, or the rows that the
                plan allows do not.
        """
        found = quick.count(plan)
        if found is not None:
            return found
        from harness.estimate import parameters  # with torch, transformers and peft

        config = parameters.checked_config(plan)
        whole = plan.as_dict()
        key = digest([whole["model"], whole["method"], whole["settings"], whole["trainer"]["max_steps"]])
        if key not in self._counted:
            self._counted[key] = parameters.count_plan(plan, config)
        return self._counted[key]
