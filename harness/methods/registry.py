"""The table of methods."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.methods import base_weights, bottleneck, library, lora, low_rank, multiplicative, soft_prompts
from harness.methods.base_weights import check_diff_pruning, check_partial
from harness.methods.bottleneck import check_adapter
from harness.methods.context import BuildContext, SheetValues
from harness.methods.library import check_library
from harness.methods.lora import check_adalora, check_lora
from harness.methods.low_rank import check_lokr, check_vblora
from harness.methods.multiplicative import check_boft, check_ia3, check_oft
from harness.methods.soft_prompts import check_cpt, check_p_tuning, check_p_tuning_v2, check_prefix, check_prompt_tuning
from harness.methods.traits import DROPS, FULL, LINEAR, LYCORIS, NO_MERGE, PLAIN, PREFIX, PROMPT, WHOLE, Traits

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    build: Callable[[SheetValues, BuildContext], "PeftConfig"]
    traits: Traits


_LINEAR, _LINEAR_DROPS = Traits(conv1d=False), Traits(conv1d=False, dropout=True)


METHODS: dict[str, Method] = {
    "full": Method(base_weights.full, FULL),
    "partial": Method(base_weights.partial, WHOLE),
    "bitfit": Method(base_weights.bitfit, PLAIN),
    "diff_pruning": Method(base_weights.diff_pruning, WHOLE),
    "ln_tuning": Method(base_weights.ln_tuning, PLAIN),
    "trainable_tokens": Method(base_weights.trainable_tokens, Traits(tied_embeddings=True, multi_adapter=False)),
    "shira": Method(base_weights.shira, _LINEAR),
    "adapter": Method(bottleneck.adapter, NO_MERGE),
    "lora": Method(lora.lora, DROPS),
    "adalora": Method(lora.adalora, Traits(dropout=True, multi_adapter=False)),
    "loha": Method(low_rank.loha, LYCORIS),
    "lokr": Method(low_rank.lokr, LYCORIS),
    "vera": Method(low_rank.vera, DROPS),
    "randlora": Method(low_rank.randlora, DROPS),
    "vblora": Method(low_rank.vblora, Traits(identity_at_start=False, dropout=True)),
    "miss": Method(low_rank.miss, _LINEAR_DROPS),
    "fourierft": Method(low_rank.fourierft, PLAIN),
    "c3a": Method(low_rank.c3a, Traits(identity_at_start=False, conv1d=False)),
    "ia3": Method(multiplicative.ia3, PLAIN),
    "oft": Method(multiplicative.oft, _LINEAR),  # PEFT 0.21 has a dropout here that nothing calls: no setting of ours
    "boft": Method(multiplicative.boft, _LINEAR_DROPS),
    "hra": Method(multiplicative.hra, LINEAR),
    "road": Method(multiplicative.road, _LINEAR),
    "prompt_tuning": Method(soft_prompts.prompt_tuning, PROMPT),
    "prefix_tuning": Method(soft_prompts.prefix_tuning, PREFIX),
    "p_tuning": Method(soft_prompts.p_tuning, replace(PROMPT, dropout=True)),
    "p_tuning_v2": Method(soft_prompts.p_tuning_v2, PREFIX),
    "cpt": Method(soft_prompts.cpt, PROMPT),
    "llama_adapter": Method(soft_prompts.llama_adapter, NO_MERGE),
    "library": Method(library.library, LINEAR),
}


PROMPT_LEARNING = frozenset(name for name, method in METHODS.items() if method.traits.prompt_learning)


def traits_of(method: str, settings: SheetValues) -> Traits:
    """What the method can do at these settings."""
    if method == "library":
        kind, chosen = settings["type"].lower(), settings["settings"]
        if kind in library.LIBRARY:
            return library.LIBRARY[kind]
        sheet = {"adaption_prompt": "llama_adapter"}.get(kind, kind)
        return traits_of(sheet, {"init_lora_weights": True} | chosen) if sheet in METHODS else METHODS["library"].traits
    known = METHODS[method].traits
    init = settings["init_lora_weights"] if method == "lora" else True
    return known if isinstance(init, bool) else lora.of_start(known, init)


def why_unquantized(method: str, settings: SheetValues, kind: Any) -> str | None:
    """Why the method cannot work over a base that is stored like this; None where it can."""
    can = traits_of(method, settings)
    fits = {"none": True, "nf4": can.nf4, "int8": can.int8}[kind.value]
    return None if fits else can.why_unquantised


def prompt_learning(method: str, settings: SheetValues) -> bool:
    """Whether left padding changes the method's answers, so that batches must be of one length."""
    return traits_of(method, settings).prompt_learning


def caveat(method: str, settings: SheetValues) -> str | None:
    """What a reader of this method's scores must know."""
    return library.CAVEATS.get(settings["type"].lower()) if method == "library" else None


def changes_base(method: str, settings: SheetValues) -> bool:
    """Whether the method writes into base weights, so that it needs a copy of its own."""
    return traits_of(method, settings).rewrites_base


METHOD_CHECKS = {
    "partial": check_partial,
    "diff_pruning": check_diff_pruning,
    "adapter": check_adapter,
    "vblora": check_vblora,
    "oft": check_oft,
    "boft": check_boft,
    "cpt": check_cpt,
    "library": check_library,
    "lora": check_lora,
    "lokr": check_lokr,
    "adalora": check_adalora,
    "ia3": check_ia3,
    "prompt_tuning": check_prompt_tuning,
    "prefix_tuning": check_prefix,
    "p_tuning": check_p_tuning,
    "p_tuning_v2": check_p_tuning_v2,
}


def sheet_faults(config: Any) -> list[str]:
    """Faults of the sheet's settings with each other."""
    return METHOD_CHECKS[config.peft.method](config) if config.peft.method in METHOD_CHECKS else []
