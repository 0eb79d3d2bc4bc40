"""What a plan asks of its base model beyond parameters: positions for its rows, and tokens that have an embedding."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Model
from harness.errors import HarnessError, ModelFault, raise_together
from harness.methods.lora import require_loftq
from harness.models import sources as model_sources
from harness.plan.spec import Plan
from harness.scoring.catalog import reads_answers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig

# Types of PEFT that add keys and values to the model's own.
IN_ATTENTION = ("PREFIX_TUNING", "ADAPTION_PROMPT", "CARTRIDGE")

# Where configurations state how many positions a model has: a table of embeddings, or what it was trained on.
WINDOWS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length")


def refuse_beyond_limits(plan: Plan, config: "PretrainedConfig") -> None:
    """Check the plan's lengths against the model's positions, and its tokenizer against the embeddings.

    Raises:
        ModelFault: a row that the plan allows would not fit; names the limit and what to lower.
    """
    if plan.settings.get("init_lora_weights") == "loftq":
        require_loftq(gpu=plan.model.device != "cpu")
    raise_together([*position_faults(plan, config), *_vocabulary(plan, config)], ModelFault)


def refuse_other_heads(model: "PeftModel", who: str) -> None:
    """Run the model without memory, if its method takes part in attention and so must know how the heads are laid out.

    Raises:
        ModelFault: the method makes keys and values of other shapes than this architecture's.
    """
    import torch

    config: Any = model.peft_config[str(model.active_adapter)]
    if str(getattr(config.peft_type, "value", config.peft_type)) not in IN_ATTENTION:
        return
    row = {"input_ids": torch.zeros((1, 4), dtype=torch.long, device="meta")}
    try:
        model.eval()(**row)
    except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        if _runs_without(model, row):
            raise ModelFault(
                f"{who} does not fit this model: its attention heads are not laid out as PEFT expects ({reason}); "
                "choose a method outside attention, such as lora, adapter or prompt_tuning"
            ) from error
    except (TypeError, AttributeError, NotImplementedError, LookupError):
        pass  # this architecture cannot run without memory, which says nothing about the method


def _runs_without(model: "PeftModel", row: dict[str, Any]) -> bool:
    """Whether the base model itself can run so."""
    try:
        with model.disable_adapter():
            model.get_base_model()(**row)
    except Exception:
        return False
    return True


def window(config: "PretrainedConfig") -> tuple[str, int] | None:
    """The setting of the configuration that states the number of positions, and the number; None if none does."""
    text = config.get_text_config(decoder=True)
    for name in WINDOWS:
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return (getattr(text, "attribute_map", None) or {}).get(name, name), value
    return None


def virtual_tokens(plan: Plan) -> int:
    """Positions that the method itself takes."""
    own = plan.settings["settings"] if plan.method == "library" else plan.settings
    if own.get("cpt_token_ids"):
        return len(own["cpt_token_ids"])
    return int(own.get("num_virtual_tokens") or 0)


def position_faults(plan: Plan, config: "PretrainedConfig") -> Iterator[str]:
    found = window(config)
    if found is None:
        return
    name, limit = found
    rows, added = plan.data.max_tokens, virtual_tokens(plan)
    answer = plan.scoring.generation.max_new_tokens if any(map(reads_answers, plan.scoring.metrics)) else 0
    needed = rows + added + answer
    if needed <= limit:
        return
    key = "library.settings" if plan.method == "library" else plan.method
    parts = [f"data.max_tokens={rows}"]
    parts += [f"{key}.num_virtual_tokens={added}"] if added else []
    parts += [f"scoring.generation.max_new_tokens={answer}"] if answer else []
    room = limit - added - answer
    keys = " and ".join(part.partition("=")[0] for part in parts)
    remedy = f"set data.max_tokens={room} or less" if room >= 4 else f"lower {keys}"
    longer = " (rows beyond it are refused, or cut with data.truncate=true)" if room >= 4 else ""
    yield f"{' + '.join(parts)} is {needed} positions, and the model has {name}={limit}; {remedy}{longer}"


def _vocabulary(plan: Plan, config: "PretrainedConfig") -> Iterator[str]:
    """Tokens that every row has, or that any text may have, without an embedding.

    Special tokens that no row needs may lie beyond: Gemma's tokenizer has one for images.
    """
    rows = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    if not isinstance(rows, int) or plan.model.config_only is not None:
        return
    ids = _token_ids(plan.model)
    beyond = {token: number for token, number in ids.items() if number >= rows}
    if beyond:
        token, number = max(beyond.items(), key=lambda item: item[1])
        yield (
            f"model={plan.model.name}: its tokenizer gives {token!r} the id {number}, and its embeddings end at "
            f"{rows - 1} (vocab_size={rows}); give the tokenizer that the model was trained with, or resize the "
            "embeddings and save the model again"
        )


_ids: dict[Path, dict[str, int]] = {}  # of tokenizers, by folder


def _token_ids(model: Model) -> dict[str, int]:
    """Ids that texts can have, and those of the tokens that end and fill rows; empty if there is no tokenizer yet."""
    from harness.models.tokenizer import load_tokenizer

    try:
        folder = model_sources.locate_tokenizer(model)
        if folder is None:
            return {}
        if folder not in _ids:
            tokenizer: Any = load_tokenizer(folder, model.trust_remote_code)[0]
            added = {token.content for token in tokenizer.added_tokens_decoder.values()}
            special = {*tokenizer.all_special_tokens, *added}
            plain = {token: number for token, number in tokenizer.get_vocab().items() if token not in special}
            used = (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token)
            own = {token: tokenizer.convert_tokens_to_ids(token) for token in used if token is not None}
            largest = dict([max(plain.items(), key=lambda item: item[1])]) if plain else {}
            _ids[folder] = largest | own
        return _ids[folder]
    except HarnessError:
        raise
    except Exception:  # whatever a tokenizer of an unknown kind lacks; loading the model will say it
        return {}
