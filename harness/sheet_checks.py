"""Faults of the used method's sheet that can be seen without weights or rows; ``checks`` has those of the rest."""

import re
from collections.abc import Iterator
from typing import Any

from harness.keys import brief
from harness.schema import Config
from harness.sound import above, at_least, one_of, share

LORA_INITS = (True, False, "gaussian", "pissa", "olora", "orthogonal", "mica", "eva", "corda", "lora_ga", "loftq")
BIASES = ("none", "all", "lora_only")
PROMPT_INITS = ("RANDOM", "SAMPLE_VOCAB", "TEXT")
COUNTS = frozenset(  # of ranks, tokens, layers, blocks, steps: at least 1 wherever a sheet has them
    [
        "r",
        "init_r",
        "target_r",
        "num_virtual_tokens",
        "encoder_num_layers",
        "deltaT",
        "encoder_hidden_size",
        "bottleneck_size",
        "reduction_factor",
        "block_size",
        "vector_length",
        "num_vectors",
        "topk",
        "mini_r",
        "n_frequency",
        "oft_block_size",
        "boft_block_size",
        "boft_block_num",
        "boft_n_butterfly_factor",
        "group_size",
        "num_cayley_neumann_terms",
        "adapter_len",
        "adapter_layers",
        "frequent_tokens",
        "randlora_alpha",
    ]
)
CHOICES: dict[str, tuple[Any, ...]] = {
    "adapter.placement": ("houlsby", "pfeiffer", "parallel"),
    "shira.mask_type": ("random",),
    "vera.bias": ("none", "all", "vera_only"),
    "randlora.bias": ("none", "all", "randlora_only"),
    "vblora.bias": ("none", "all", "vblora_only"),
    "miss.init_weights": (True, False, "bat", "mini"),
    "c3a.init_weights": (True, False, "gaussian", "kaiming_uniform", "xavier_uniform"),
    "oft.bias": ("none", "all", "oft_only"),
    "boft.bias": ("none", "all", "boft_only"),
    "hra.bias": ("none", "all", "hra_only"),
    "road.variant": ("road_1", "road_2", "road_4"),
    "cpt.opt_weighted_loss_type": ("none", "decay"),
}


def fields(method: str, sheet: dict[str, Any]) -> Iterator[str]:
    """Faults that any sheet can have, by the name of the field."""
    for name, value in sheet.items():
        key = f"{method}.{name}"
        if name == "learning_rate":
            yield from above(key, value, 0)
        elif name in COUNTS:
            yield from at_least(key, value, 1)
        elif key in CHOICES:
            yield from one_of(key, value, CHOICES[key])
        elif name in ("lora_alpha", "alpha"):
            yield from above(key, value, 0)
        elif name.endswith("dropout"):
            yield from share(key, value)
        elif name in ("target_modules", "exclude_modules", "feedforward_modules", "modules"):
            yield from _names(key, value)
        elif name == "layers_to_transform" and value is not None:
            yield from _layers(key, value, method, sheet["target_modules"])
        elif name in ("rank_pattern", "alpha_pattern"):
            for pattern, item in value.items():
                yield from _expression(key, pattern)
                yield from above(f"{key}.{pattern}", item, 0)


def _names(key: str, value: Any) -> Iterator[str]:
    listed = isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
    if not (value is None or listed or (isinstance(value, str) and value)):
        yield f"{key}={brief(str(value))} is neither a name, a list of names nor null; e.g. {key}=[q_proj,v_proj]"
    elif isinstance(value, str):
        yield from _expression(key, value)


def _expression(key: str, value: str) -> Iterator[str]:
    """PEFT reads one text as a regular expression for whole names."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        yield f"{key}={brief(value)} is no regular expression ({error}); give a list of names, e.g. [q_proj,v_proj]"


def _layers(key: str, value: list[int], method: str, targets: Any) -> Iterator[str]:
    if not value or any(layer < 0 for layer in value):
        yield f"{key}={value} must list layers, counted from 0; or null for all layers"
    # Elsewhere all-linear becomes a list first; a regular expression never does, and would win silently.
    if isinstance(targets, str) and (targets != "all-linear" or method in ("lora", "adalora")):
        yield f"{key}={value} needs a list in {method}.target_modules, not {targets}; e.g. [q_proj,v_proj]"


def _partial(config: Config) -> list[str]:
    sheet = config.partial
    found = list(at_least("partial.last_layers", sheet.last_layers, 1))
    if sheet.last_layers is None and not sheet.modules and not sheet.norms:
        found.append("partial selects nothing to train; set partial.last_layers, partial.modules or partial.norms")
    return found


def _lora(config: Config) -> list[str]:
    init = config.lora.init_lora_weights
    found = list(one_of("lora.bias", config.lora.bias, BIASES))
    if not (isinstance(init, str) and init.startswith("pissa_niter_") and init[12:].isdigit()):
        found += one_of("lora.init_lora_weights", init, LORA_INITS)
    if config.lora.lora_fa and config.lora.loraplus_lr_ratio is not None:
        found.append("lora.lora_fa=true and lora.loraplus_lr_ratio each bring an optimizer; unset one of them")
    if config.lora.lora_fa and config.lora.use_dora:
        found.append("lora.lora_fa=true takes pairs of A and B, and lora.use_dora=true adds a third; unset one of them")
    found += at_least("lora.loraplus_lr_ratio", config.lora.loraplus_lr_ratio, 1)
    for name in ("eva", "corda", "lora_ga", "loftq"):
        if getattr(config.lora, f"{name}_config") and init != name:
            found.append(
                f"lora.{name}_config has no effect without lora.init_lora_weights={name}; unset it or set that"
            )
    return found


def _adapter(config: Config) -> list[str]:
    sheet = config.adapter
    if (sheet.bottleneck_size is None) == (sheet.reduction_factor is None):
        return [
            f"adapter.bottleneck_size={sheet.bottleneck_size} and adapter.reduction_factor={sheet.reduction_factor}: "
            "set exactly one of the two, and the other to null"
        ]
    return []


def _diff_pruning(config: Config) -> list[str]:
    sheet = config.diff_pruning
    return [
        *above("diff_pruning.target_sparsity", sheet.target_sparsity, 0),
        *share("diff_pruning.target_sparsity", sheet.target_sparsity, closed=True),
        *share("diff_pruning.final_share", sheet.final_share),
        *at_least("diff_pruning.l0_weight", sheet.l0_weight, 0),
        *above("diff_pruning.gate_speed", sheet.gate_speed, 0),
        *above("diff_pruning.stretch_upper", sheet.stretch_upper, 1),
        *above("-diff_pruning.stretch_lower", -sheet.stretch_lower, 0),
    ]


def _vblora(config: Config) -> list[str]:
    sheet = config.vblora
    if sheet.topk > sheet.num_vectors:
        return [f"vblora.topk={sheet.topk} exceeds vblora.num_vectors={sheet.num_vectors}; lower it"]
    return []


def _oft(config: Config) -> list[str]:
    return _one_size("oft.r", config.oft.r, "oft.oft_block_size", config.oft.oft_block_size)


def _boft(config: Config) -> list[str]:
    sheet = config.boft
    return _one_size("boft.boft_block_num", sheet.boft_block_num, "boft.boft_block_size", sheet.boft_block_size)


def _one_size(number_key: str, number: int | None, size_key: str, size: int | None) -> list[str]:
    if number is not None and size is not None:
        return [f"{number_key}={number} and {size_key}={size} say the same in two ways; set one of them to null"]
    return []


def _cpt(config: Config) -> list[str]:
    sheet = config.cpt
    ids = sheet.cpt_token_ids
    found = []
    for name in ("cpt_mask", "cpt_tokens_type_mask"):
        values = getattr(sheet, name)
        if values is not None and len(values) != len(ids or ()):
            found.append(
                f"cpt.{name} has {len(values)} entries for {len(ids or ())} of cpt.cpt_token_ids; give one each"
            )
    return found


def _library(config: Config) -> list[str]:
    from harness import library  # reads PEFT's own classes, which takes seconds

    return library.faults(config.library.type, config.library.settings)


def _adalora(config: Config) -> list[str]:
    sheet = config.adalora
    found = [
        *share("adalora.warmup_share", sheet.warmup_share),
        *share("adalora.final_share", sheet.final_share),
        *above("adalora.orth_reg_weight", sheet.orth_reg_weight, 0),
        *(
            f"adalora.{name}={beta} must be above 0 and below 1"
            for name, beta in (("beta1", sheet.beta1), ("beta2", sheet.beta2))
            if not 0 < beta < 1
        ),
    ]
    if sheet.target_r > sheet.init_r:
        found.append(
            f"adalora.target_r={sheet.target_r} exceeds adalora.init_r={sheet.init_r}; pruning only lowers ranks"
        )
    if max(sheet.warmup_share, sheet.final_share) < 1 <= sheet.warmup_share + sheet.final_share:
        found.append("adalora.warmup_share + adalora.final_share leave no step to prune in; lower them below 1")
    return found


def _ia3(config: Config) -> list[str]:
    inner, outer = config.ia3.feedforward_modules, config.ia3.target_modules
    if (
        isinstance(inner, list)
        and isinstance(outer, list)
        and (strays := [name for name in inner if name not in outer])
    ):
        return [f"ia3.feedforward_modules={inner} goes beyond ia3.target_modules={outer}; add {strays} there"]
    return []


def _lokr(config: Config) -> list[str]:
    factor = config.lokr.decompose_factor
    if factor != -1 and factor < 1:
        return [f"lokr.decompose_factor={factor} is no factor; use -1 (the nearest to the square root) or at least 1"]
    return []


def _prompt_tuning(config: Config) -> list[str]:
    sheet = config.prompt_tuning
    found = list(one_of("prompt_tuning.prompt_tuning_init", sheet.prompt_tuning_init, PROMPT_INITS))
    if sheet.prompt_tuning_init == "TEXT" and not sheet.prompt_tuning_init_text:
        found.append("prompt_tuning.prompt_tuning_init=TEXT needs prompt_tuning.prompt_tuning_init_text")
    return found


def _prefix(config: Config) -> list[str]:
    if config.trainer.gradient_checkpointing:
        return [
            f"peft={config.peft.method} keeps its prefix in the key-value cache, which "
            "trainer.gradient_checkpointing=true switches off; set it to false"
        ]
    return []


def _p_tuning(config: Config) -> list[str]:
    return list(
        one_of(
            "p_tuning.encoder_reparameterization_type",
            config.p_tuning.encoder_reparameterization_type,
            ("MLP", "LSTM"),
        )
    )


def _p_tuning_v2(config: Config) -> list[str]:
    return [
        *one_of("p_tuning_v2.init_weights", config.p_tuning_v2.init_weights, (None, "zero")),
        *_prefix(config),
    ]


METHOD_CHECKS = {
    "partial": _partial,
    "diff_pruning": _diff_pruning,
    "adapter": _adapter,
    "vblora": _vblora,
    "oft": _oft,
    "boft": _boft,
    "cpt": _cpt,
    "library": _library,
    "lora": _lora,
    "lokr": _lokr,
    "adalora": _adalora,
    "ia3": _ia3,
    "prompt_tuning": _prompt_tuning,
    "prefix_tuning": _prefix,
    "p_tuning": _p_tuning,
    "p_tuning_v2": _p_tuning_v2,
}


def whole(config: Config) -> list[str]:
    """Faults of the sheet's settings with each other."""
    return METHOD_CHECKS[config.peft.method](config) if config.peft.method in METHOD_CHECKS else []
