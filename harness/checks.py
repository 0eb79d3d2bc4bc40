"""Faults of a typed configuration that can be seen without weights or rows.

Each check yields sentences that name key, value and remedy. Types are already right when these run.
"""

import re
from collections.abc import Iterator
from typing import Any

from harness import parallel, sound
from harness.keys import brief
from harness.schema import SHEETS, Config, Objective, Quantization, RowFormat, Source, Template, Tracking

METRICS = ("exact_match", "names_target", "token_f1", "rouge_l", "chrf", "bleu")
TOKENIZERS = ("zh", "char", "jieba", "13a")
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


def faults(config: Config) -> list[str]:
    """Every fault of this configuration, in the order of its groups."""
    if config.peft.method not in SHEETS:
        return [f"peft.method={config.peft.method} is unknown; choose one of {', '.join(SHEETS)}"]
    sheet = getattr(config, config.peft.method)
    used = {key: node for key, node in vars(config).items() if key not in SHEETS} | {config.peft.method: sheet}
    unsound = dict(fault for key, node in used.items() for fault in sound.faults(key, node))
    parts = (_model(config), _data(config), _trainer(config), _scoring(config), _tracker(config), _places(config))
    found = [fault for part in parts for fault in part]
    found += _at_least("sweep.max_failures", config.sweep.max_failures, 0)
    found += _sheet(config.peft.method, vars(sheet))
    found += METHOD_CHECKS[config.peft.method](config) if config.peft.method in METHOD_CHECKS else []
    # A value that is no number at all needs no second word about its size.
    rest = [fault for fault in found if fault.partition("=")[0] not in unsound]
    return [*unsound.values(), *dict.fromkeys(rest)]


def _at_least(key: str, value: float | None, low: float) -> Iterator[str]:
    if value is not None and not value >= low:
        yield f"{key}={value} is too small; use at least {low:g}"


def _above(key: str, value: float | None, low: float) -> Iterator[str]:
    if value is not None and not (value > low and value < float("inf")):
        yield f"{key}={value} must be a finite number above {low:g}"


def _share(key: str, value: float, closed: bool = False) -> Iterator[str]:
    if not (0 <= value < 1 or (closed and value == 1)):
        yield f"{key}={value} is no share; use a number from 0 to {'1' if closed else 'below 1'}"


def _one_of(key: str, value: Any, known: tuple[Any, ...]) -> Iterator[str]:
    # 1 == True in Python, and 1 is no flag.
    if not any(value == item and type(value) is type(item) for item in known):
        choices = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in known)
        yield f"{key}={value} is unknown; choose one of {choices}"


def _model(config: Config) -> Iterator[str]:
    model = config.model
    if model.source is not Source.package and not model.path:
        yield f"model.path is empty; model.source={model.source.value} needs it"
    if model.source is Source.package and not model.packages:
        yield "model.packages is empty; model.source=package needs the distributions that carry the weights"
    if model.trust_remote_code and model.source is not Source.hub:
        yield "model.trust_remote_code=true has a meaning for model.source=hub only; set it to false"
    yield from _share("model.prune", model.prune)
    if model.prune and model.quantization is not Quantization.none:
        yield (
            f"model.prune={model.prune} needs the numbers of the base weights, and model.quantization="
            f"{model.quantization.value} keeps them in a few bits; set one of the two"
        )
    yield from _quantisation(config)


def _quantisation(config: Config) -> Iterator[str]:
    """Some methods cannot work over weights in 4 or 8 bits, most because they need their numbers."""
    kind, method = config.model.quantization, config.peft.method
    if kind is Quantization.none:
        return
    from harness import methods

    why = methods.unquantised(method, vars(getattr(config, method)), kind)
    if why:
        start = f" lora.init_lora_weights={config.lora.init_lora_weights}" if method == "lora" else ""
        start = f" library.type={config.library.type}" if method == "library" else start
        yield (
            f"peft={method}{start} {why}; model.quantization={kind.value} cannot be used with it: set "
            "model.quantization=none, or choose another method"
        )


def _places(config: Config) -> Iterator[str]:
    """Paths that no file system could hold, and a place for records that cannot be written."""
    paths = {"runs_dir": config.runs_dir, "data.path": config.data.path, "model.path": config.model.path}
    paths["scoring.forgetting"] = config.scoring.forgetting
    paths["export.dir"] = config.export.dir
    if config.tracker.name is not Tracking.none:
        paths["tracker.dir"] = config.tracker.dir
    unfit = [fault for key, path in paths.items() if path for fault in sound.path_faults(key, path)]
    yield from unfit
    if not config.runs_dir:
        yield "runs_dir is empty; name the folder for records, e.g. runs_dir=runs"
    elif not unfit and sound.is_text(config.runs_dir):
        yield from sound.unwritable(config.runs_dir, config.stage)


def _data(config: Config) -> Iterator[str]:
    data = config.data
    for name in ("messages",) if data.format is RowFormat.messages else ("instruction", "output"):
        if not getattr(data.columns, name):
            yield f"data.columns.{name}=null but data.format={data.format.value} needs it; name the column"
    if not data.path:
        yield "data.path is empty; name a file, a folder or a data set on the hub, e.g. data.path=rows.jsonl"
    yield from _share("data.fractions.validation", data.fractions.validation)
    yield from _share("data.fractions.test", data.fractions.test)
    if max(data.fractions.validation, data.fractions.test) < 1 <= data.fractions.validation + data.fractions.test:
        yield "data.fractions.validation + data.fractions.test leave no training rows; lower them"
    for split, limit in vars(data.limits).items():
        if not split.startswith("_"):
            yield from _at_least(f"data.limits.{split}", limit, 1)
    yield from _at_least("data.max_tokens", data.max_tokens, 4)


def _trainer(config: Config) -> Iterator[str]:
    trainer = config.trainer
    yield from _above("trainer.epochs", trainer.epochs, 0)
    yield from _at_least("trainer.max_steps", trainer.max_steps, 1)
    yield from _at_least("trainer.batch_size", trainer.batch_size, 1)
    yield from _at_least("trainer.gradient_accumulation_steps", trainer.gradient_accumulation_steps, 1)
    yield from _above("trainer.learning_rate", trainer.learning_rate, 0)
    yield from _at_least("trainer.weight_decay", trainer.weight_decay, 0)
    yield from _share("trainer.warmup_share", trainer.warmup_share)
    yield from _above("trainer.max_grad_norm", trainer.max_grad_norm, 0)
    yield from _at_least("trainer.evaluations", trainer.evaluations, 0)
    yield from _at_least("trainer.threads", trainer.threads, 1)
    yield from _at_least("trainer.checkpoint_minutes", trainer.checkpoint_minutes, 0)
    yield from _at_least("trainer.checkpoint_steps", trainer.checkpoint_steps, 1)
    if not 0 <= config.seed < 2**32:
        yield f"seed={config.seed} is out of range; use a whole number from 0 to {2**32 - 1}"
    if trainer.keep_best and trainer.evaluations < 1:
        yield "trainer.keep_best=true needs trainer.evaluations of at least 1, or set trainer.keep_best=false"
    yield from _distillation(config)
    yield from parallel.faults(config)
    if trainer.objective is Objective.lesson and config.data.template is not Template.lesson:
        yield (
            f"trainer.objective=lesson reproduces the lesson's own prompt, not data.template="
            f"{config.data.template.value}; set data.template=lesson"
        )


def _distillation(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.objective is not Objective.distill:
        if trainer.teacher is not None:
            yield (
                f"trainer.teacher={brief(trainer.teacher)} has no effect without trainer.objective=distill; set that, "
                "or trainer.teacher=null"
            )
        return
    if not trainer.teacher:
        yield (
            "trainer.teacher=null but trainer.objective=distill needs one; name a model folder, a hub name or the "
            "fingerprint of a run"
        )
    if config.peft.method == "cpt":
        yield "peft=cpt trains on a loss of its own, which trainer.objective=distill cannot mix; use completion"
    yield from _above("trainer.distill_temperature", trainer.distill_temperature, 0)
    yield from _share("trainer.distill_weight", trainer.distill_weight, closed=True)


def _scoring(config: Config) -> Iterator[str]:
    scoring = config.scoring
    yield from _one_of("scoring.split", scoring.split, ("test", "validation"))
    yield from _one_of("scoring.tokenize", scoring.tokenize, TOKENIZERS)
    for metric in scoring.metrics:
        yield from _one_of("scoring.metrics", metric, METRICS)
    if "names_target" in scoring.metrics and config.data.columns.target is None:
        yield (
            "scoring.metrics holds names_target but data.columns.target is null; name the column with the "
            "short answer, or set scoring.metrics without names_target"
        )
    generation = scoring.generation
    yield from _at_least("scoring.generation.batch_size", generation.batch_size, 1)
    yield from _at_least("scoring.generation.max_new_tokens", generation.max_new_tokens, 1)
    yield from _at_least("scoring.loss_batch_size", scoring.loss_batch_size, 1)
    yield from _at_least("scoring.forgetting_limit", scoring.forgetting_limit, 1)
    if generation.do_sample:
        yield from _above("scoring.generation.temperature", generation.temperature, 0)
        if not 0 < generation.top_p <= 1:
            yield f"scoring.generation.top_p={generation.top_p} must be above 0 and at most 1"


def _tracker(config: Config) -> Iterator[str]:
    if config.tracker.name is Tracking.wandb:
        yield from _one_of("tracker.mode", config.tracker.mode, ("offline", "online"))


def _sheet(method: str, sheet: dict[str, Any]) -> Iterator[str]:
    """Faults that any sheet can have, by the name of the field."""
    for name, value in sheet.items():
        key = f"{method}.{name}"
        if name == "learning_rate":
            yield from _above(key, value, 0)
        elif name in COUNTS:
            yield from _at_least(key, value, 1)
        elif key in CHOICES:
            yield from _one_of(key, value, CHOICES[key])
        elif name in ("lora_alpha", "alpha"):
            yield from _above(key, value, 0)
        elif name.endswith("dropout"):
            yield from _share(key, value)
        elif name in ("target_modules", "exclude_modules", "feedforward_modules", "modules"):
            yield from _names(key, value)
        elif name == "layers_to_transform" and value is not None:
            yield from _layers(key, value, method, sheet["target_modules"])
        elif name in ("rank_pattern", "alpha_pattern"):
            for pattern, item in value.items():
                yield from _expression(key, pattern)
                yield from _above(f"{key}.{pattern}", item, 0)


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
    found = list(_at_least("partial.last_layers", sheet.last_layers, 1))
    if sheet.last_layers is None and not sheet.modules and not sheet.norms:
        found.append("partial selects nothing to train; set partial.last_layers, partial.modules or partial.norms")
    return found


def _lora(config: Config) -> list[str]:
    init = config.lora.init_lora_weights
    found = list(_one_of("lora.bias", config.lora.bias, BIASES))
    if not (isinstance(init, str) and init.startswith("pissa_niter_") and init[12:].isdigit()):
        found += _one_of("lora.init_lora_weights", init, LORA_INITS)
    if config.lora.lora_fa and config.lora.loraplus_lr_ratio is not None:
        found.append("lora.lora_fa=true and lora.loraplus_lr_ratio each bring an optimizer; unset one of them")
    if config.lora.lora_fa and config.lora.use_dora:
        found.append("lora.lora_fa=true takes pairs of A and B, and lora.use_dora=true adds a third; unset one of them")
    found += _at_least("lora.loraplus_lr_ratio", config.lora.loraplus_lr_ratio, 1)
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
        *_above("diff_pruning.target_sparsity", sheet.target_sparsity, 0),
        *_share("diff_pruning.target_sparsity", sheet.target_sparsity, closed=True),
        *_share("diff_pruning.final_share", sheet.final_share),
        *_at_least("diff_pruning.l0_weight", sheet.l0_weight, 0),
        *_above("diff_pruning.gate_speed", sheet.gate_speed, 0),
        *_above("diff_pruning.stretch_upper", sheet.stretch_upper, 1),
        *_above("-diff_pruning.stretch_lower", -sheet.stretch_lower, 0),
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
        *_share("adalora.warmup_share", sheet.warmup_share),
        *_share("adalora.final_share", sheet.final_share),
        *_above("adalora.orth_reg_weight", sheet.orth_reg_weight, 0),
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
    found = list(_one_of("prompt_tuning.prompt_tuning_init", sheet.prompt_tuning_init, PROMPT_INITS))
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
        _one_of(
            "p_tuning.encoder_reparameterization_type",
            config.p_tuning.encoder_reparameterization_type,
            ("MLP", "LSTM"),
        )
    )


def _p_tuning_v2(config: Config) -> list[str]:
    return [
        *_one_of("p_tuning_v2.init_weights", config.p_tuning_v2.init_weights, (None, "zero")),
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
