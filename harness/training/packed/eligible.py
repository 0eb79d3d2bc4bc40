"""Which plans can train together, as far as a plan tells."""

from harness.config.schema import Objective, Quantization, Strategy
from harness.methods.registry import changes_base
from harness.plan.spec import CONTINUE_FROM, Options, Plan, digest, effective_settings

METHODS = ("lora", "ia3")

# Settings of the trainer that runs of a pack share; each run has its own optimizer, schedule, validation and length.
SHARED = ("batch_size", "gradient_accumulation_steps", "deterministic", "kernels")


def why_alone(plan: Plan) -> str | None:
    """Why the plan cannot train together with others; None if it can."""
    settings, trainer, model = plan.settings, plan.trainer, plan.model
    if plan.method not in METHODS:
        return f"peft={plan.method}: packs take {' and '.join(METHODS)}"
    if settings.get("use_dora"):
        return "lora.use_dora=true: its norms are of whole weights, one for each adapter"
    if changes_base(plan.method, settings) or settings.get("init_lora_weights") == "mica":
        return f"lora.init_lora_weights={settings['init_lora_weights']} changes what the runs share"
    if settings.get("bias", "none") != "none":
        return f"{plan.method}.bias={settings['bias']} trains weights of the base"
    if settings.get("modules_to_save"):
        return f"{plan.method}.modules_to_save trains whole modules"
    if trainer.objective is not Objective.completion:
        return f"trainer.objective={trainer.objective.value}: packs take completion"
    if trainer.neftune_alpha is not None:
        return f"trainer.neftune_alpha={trainer.neftune_alpha:g} draws noise for the rows of one run"
    if plan.data.columns.weight is not None or plan.data.class_weights:
        return "data.columns.weight or data.class_weights: packs take rows that count alike"
    if trainer.parallel.strategy is not Strategy.none:
        return f"trainer.parallel={trainer.parallel.strategy.value} takes several processes for one run"
    if trainer.gradient_checkpointing:
        return "trainer.gradient_checkpointing=true computes each layer again, one run at a time"
    if model.quantization is not Quantization.none:
        return f"model.quantization={model.quantization.value}: packs take unquantized bases"
    if model.device_map is not None:
        return f"model.device_map={model.device_map} spreads the base over devices"
    return None


def pack_key(plan: Plan, options: Options) -> str:
    """Equal for plans that can train together: one base, the same rows, batches of one size, and as many threads."""
    shared = effective_settings(plan.as_dict())
    trainer = {name: shared["trainer"].get(name) for name in SHARED}
    inputs = {name: value for name, value in shared["inputs"].items() if name != CONTINUE_FROM}  # of each run's adapter
    return digest([shared["model"], shared["data"], inputs, trainer, options.threads])
