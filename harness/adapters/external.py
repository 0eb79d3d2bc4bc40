"""An adapter from elsewhere on a base model."""

from typing import TYPE_CHECKING, Any

from harness.models.peft_adapters import ExternalAdapter

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.models.base import Base


def load_external(base: "Base", adapter: ExternalAdapter) -> "PeftModel":
    """The adapter on a copy of the base's weights, ready to generate; the base itself stays as it is.

    Raises:
        ModelFault: it does not fit the base.
    """
    from harness.adapters.attach import load_peft_model
    from harness.models.base import fork

    return load_peft_model(fork(base, private_weights=True), adapter.folder)


def reads_prompts_apart(model: "PeftModel") -> bool:
    """Whether padding may change the answers of this adapter, so that prompts of one length are answered together."""
    config: Any = model.peft_config[str(model.active_adapter)]
    return bool(config.is_prompt_learning) or str(config.peft_type).rpartition(".")[2] == "ADAPTION_PROMPT"


def other_base(adapter: ExternalAdapter, model: Any) -> str | None:
    """What to say if the adapter names another base than the one it is scored on; None if it does not."""
    if not adapter.is_of_other_base(model.path):
        return None
    return f"{adapter.name} says that it was trained on {adapter.base}, and is scored on {model.path}"


def other_template(adapter: ExternalAdapter, used: str, what: str = "scored") -> str | None:
    """What to say if the adapter was trained with another template than the one ``used`` now; None if it was not."""
    if adapter.template in (None, used):
        return None
    return f"{adapter.name} was trained with data.template={adapter.template}, and is {what} with {used}"
