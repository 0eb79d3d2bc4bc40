"""Parameter counts on the meta device: exact, and without weights.

``count_plan`` counts our plans; ``count_trainable`` counts any PEFT configuration on any architecture, such as a
published ``adapter_config.json`` on the ``config.json`` of its base.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.adapters import block_sizes
from harness.adapters.attach import (
    build_context,
    explaining_peft_errors,
    peft_config_for,
    without_data_init,
    wrap_model,
)
from harness.config.compose import sheet_values
from harness.errors import ModelFault
from harness.estimate import formulas, limits
from harness.methods import library
from harness.methods.context import COUNTING_STEPS, BuildContext, for_counting
from harness.methods.registry import METHODS, hooks_of
from harness.models import skeleton as model_skeleton
from harness.models.counts import Counts, count
from harness.plan.spec import Plan

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PretrainedConfig, PreTrainedModel


def checked_config(plan: Plan) -> "PretrainedConfig":
    """The configuration of the plan's model.

    Raises:
        ModelFault: it is not available, or the rows that the plan allows do not fit it.
    """
    config = model_skeleton.load_config(plan.model)
    limits.refuse_beyond_limits(plan, config)
    return config


def count_plan(plan: Plan, config: "PretrainedConfig") -> Counts:
    """What the plan would train on a model of this configuration.

    Raises:
        ModelFault: the method does not fit it.
    """
    context = build_context(plan, config, str(plan.model.path), plan.trainer.max_steps or 0)
    skeleton = model_skeleton.skeleton(config)
    return _count_sheet(skeleton, plan.method, plan.settings, for_counting(context))


def count_trainable(model_config: Mapping[str, Any], method: str, settings: Mapping[str, Any]) -> Counts:
    """What a method would train on a model, from their configurations only.

    LoRA-FA is counted as its optimizer leaves it, AdaLoRA at ``init_r``, EVA before it moves ranks between layers.

    Args:
        model_config: the content of a ``config.json``. Its ``architectures`` say which model is built; without
            them it is the causal LM of its ``model_type``, the sequence-to-sequence model if that has an encoder
            and a decoder, or else the bare encoder.
        method: the name of a sheet, whose values ``settings`` override; or a type of PEFT, e.g. ``LORA``, whose
            defaults they override. Settings that hold ``peft_type`` are a whole ``adapter_config.json``: the
            sheet is then not read.
        settings: under PEFT's names, or the sheet's; PEFT's bookkeeping fields are ignored.

    Raises:
        ModelFault: an unknown method, setting or architecture, or one that does not fit the other.
    """
    chosen = {key: value for key, value in settings.items() if key not in library.BOOKKEEPING}
    kind = str(settings.get("peft_type") or method).rpartition(".")[2]
    if "peft_type" not in settings and method in METHODS:
        sheet = _sheet(method)
        known = set(sheet) | set(library.library_fields(SHEET_TYPES.get(method, method)) if method != "library" else ())
        chosen = _known(method, chosen, known)
        skeleton, task = _skeleton(model_config)
        return _count_sheet(skeleton, method, sheet | chosen, _context(skeleton), task)
    if kind.lower() not in library.library_types():
        raise ModelFault(f"method={method} is neither a sheet ({', '.join(METHODS)}) nor a type of PEFT")
    chosen = _known(method, chosen, set(library.library_fields(kind.lower())))
    skeleton, task = _skeleton(model_config)
    with explaining_peft_errors(f"method={method}", None, skeleton):
        config = _configuration(kind.lower(), chosen, task)
        block_sizes.fit_sizes(config, vars(config), skeleton, method)
        return _count(skeleton, config)


def _configuration(kind: str, settings: Mapping[str, Any], task: str | None) -> Any:
    """PEFT's configuration of a type; only its settings if it is counted by formula and a package is missing."""
    try:
        return library.library_types()[kind](task_type=task, **without_data_init(settings))
    except ImportError:
        if kind.upper() not in formulas.TRAINED:
            raise
        return formulas.bare(kind, settings)


def _count_sheet(
    skeleton: "PreTrainedModel",
    method: str,
    settings: Mapping[str, Any],
    context: BuildContext,
    task: str | None = "CAUSAL_LM",
) -> Counts:
    config = peft_config_for(skeleton, method, settings, context)
    config.task_type = task
    with explaining_peft_errors(f"peft={method}", config, skeleton):
        return _count(skeleton, config, method, settings)


def _count(
    skeleton: "PreTrainedModel", config: "PeftConfig", method: str = "", settings: Mapping[str, Any] | None = None
) -> Counts:
    """Wrap on the meta device and count; use a formula for types that compute with the base's weights."""
    if _kind(config) in formulas.TRAINED:
        trained = formulas.trained(config, skeleton)
        return Counts(trained, count(skeleton).total + trained)
    model = wrap_model(skeleton, config)
    if method:
        limits.refuse_other_heads(model, f"peft={method}")
        # LoRA-FA freezes A
        hooks_of(method, settings or {}).optimizer(model, settings or {}, learning_rate=1.0, weight_decay=0.0)
    counts = count(model)
    if not counts.trainable:
        raise ModelFault(f"{method or _kind(config)} has nothing to train on this model; change its target modules")
    return counts


UNSET: tuple[Any, ...] = (None, False, "", [], {})  # what an unknown field may be

# Methods whose name is not that of their PEFT type.
SHEET_TYPES = {"p_tuning_v2": "prefix_tuning", "llama_adapter": "adaption_prompt"}


def _kind(config: "PeftConfig") -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _known(method: str, settings: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The settings without unknown ones that are null or empty. Raises ``ModelFault`` for those that say something."""
    # A configuration of another version of PEFT lists fields that ours lacks; unset, they mean nothing.
    unknown = [key for key in settings if key not in known and settings[key] not in UNSET]
    if unknown:
        raise ModelFault(
            f"{method}.{unknown[0]}={settings[unknown[0]]} is unknown; {method} has {', '.join(sorted(known))}"
        )
    return {key: value for key, value in settings.items() if key in known}


def _sheet(method: str) -> dict[str, Any]:
    """The values of a sheet, without its learning rate."""
    values = sheet_values(method)
    return {key: value for key, value in values.items() if key != "learning_rate"}


def _context(skeleton: "PreTrainedModel") -> BuildContext:
    text = skeleton.config.get_text_config(decoder=True)
    return BuildContext(COUNTING_STEPS, "", 0, text.hidden_size, text.num_hidden_layers)


def _skeleton(model_config: Mapping[str, Any]) -> "tuple[PreTrainedModel, str | None]":
    """The model on the meta device, and PEFT's task type for it (None: a bare encoder)."""
    import torch
    import transformers
    from transformers.models.auto import modeling_auto as auto

    try:
        config = transformers.AutoConfig.for_model(**model_config)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelFault(f"the model's configuration names no architecture of transformers ({error})") from error
    kind = config.model_type
    name: Any = next(iter(config.architectures or ()), None)
    if name is None and config.is_encoder_decoder:
        name = auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(kind)
    elif name is None and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        name = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    name = name or auto.MODEL_MAPPING_NAMES.get(kind)
    net: Any = getattr(transformers, str(name), None)
    if net is None:
        raise ModelFault(f"transformers has no class {name} for model_type={kind}; set architectures")
    with torch.device("meta"):
        skeleton = net._from_config(config)
    return skeleton, next((task for suffix, task in TASKS.items() if str(name).endswith(suffix)), None)


TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "T5ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "BartForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
