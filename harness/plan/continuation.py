"""Training that begins with the weights of a finished run or of a published adapter: ``trainer.continue_from``.

Such a run has an optimizer and a schedule of its own, so that it is not equal to a longer run.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.config.schema import Config, Model
from harness.errors import ConfigFault, brief, raise_together
from harness.methods.library import BOOKKEEPING
from harness.models.peft_adapters import ADAPTER_NOTE, ExternalAdapter, find_adapter
from harness.record import store
from harness.record.adapter_files import require_whole

KEY = "trainer.continue_from"
DIGITS = 16  # of the SHA-256 of the weights, in the plan

# Settings of PEFT that have no say in what the trained weights compute: how they began, and what training drops.
FREE = BOOKKEEPING | {
    *("init_lora_weights", "init_weights", "init_ia3_weights", "prompt_tuning_init", "prompt_tuning_init_text"),
    *("tokenizer_name_or_path", "tokenizer_kwargs", "lora_dropout", "lora_ga_config", "loftq_config", "eva_config"),
    *("corda_config", "runtime_config", "megatron_config", "megatron_core", "qalora_group_size", "low_cpu_mem_usage"),
    *("ensure_weight_tying", "trainable_token_indices"),
}

# Methods whose saved adapter is not all that training needs, and why.
NOT_WHOLE = {
    "adalora": "has pruned its ranks by a schedule that ended with its training",
    "diff_pruning": "has fixed which weights differ by a schedule that ended with its training",
    "p_tuning": "saves the prompt that its encoder gives, not the encoder that trains",
    "cpt": "learns offsets within bounds around tokens that it chose itself",
}


@dataclass(frozen=True)
class Source:
    """Where the first weights come from."""

    adapter: ExternalAdapter
    run: Mapping[str, Any] | None  # the record of a finished run; None for an adapter from elsewhere

    @property
    def digest(self) -> str:
        """What the plan's fingerprint includes: the same weights and settings are the same start."""
        return self.adapter.sha256[:DIGITS]

    @property
    def words(self) -> str:
        """For the console and the notes of the record."""
        if self.run is None:
            what = f"the adapter {self.adapter.name}"
        else:
            steps = self.run["training"].get("best_step") or self.run["training"].get("optimizer_steps")
            what = f"run {self.run['fingerprint']} (its kept weights, of optimizer step {steps})"
        return (
            f"begins with the weights of {what}, with a fresh optimizer and schedule ({KEY}): not equal to a longer run"
        )

    def as_dict(self) -> dict[str, Any]:
        """What a record keeps."""
        kept: dict[str, Any] = {"sha256": self.adapter.sha256}
        if self.run is None:
            return {"adapter": self.adapter.name, "commit": self.adapter.commit, **kept}
        training = self.run["training"]
        return {
            "run": self.run["fingerprint"],
            **kept,
            "optimizer_steps": training.get("optimizer_steps"),
            "tokens": training.get("tokens"),
            "train_s": self.run["times_s"].get("train"),
        }


def find_source(name: str, runs_dir: Path) -> Source:
    """The finished run with this fingerprint, or else the adapter in a folder or on the hub.

    Raises:
        ConfigFault: the run is not finished, kept no adapter, or is not one that was trained here.
        ModelFault: there is nothing of that name, or its files are damaged.
    """
    if re.fullmatch(r"[0-9a-f]{12}", name) and store.record_path(runs_dir, name).exists():
        record = store.read_record(runs_dir, name, curve=False)
        if record is None or record["status"] != "finished":
            raise ConfigFault(f"{KEY}={name} is a run that is not finished; run its command again first")
        if record.get("external") or record.get("foreign"):
            raise ConfigFault(
                f"{KEY}={name} is the record of an adapter from elsewhere, which holds no weights; name the adapter's "
                "folder or hub name"
            )
        folder = require_whole(store.adapter_folder(runs_dir, record), record)
        return Source(find_adapter(str(folder), KEY), record)
    if "/" not in name and not Path(name).expanduser().is_dir():
        raise ConfigFault(f"{KEY}={brief(name)} is neither a run in {runs_dir} nor a folder; correct it")
    return Source(find_adapter(name, KEY), None)


def source_digest(config: Config, model_digest: str | None) -> str:
    """The digest of the source, once nothing speaks against it.

    Args:
        model_digest: of the weights of the plan's base; None: they are named by the hub alone.

    Raises:
        ConfigFault: it was trained with another method, base or shape; all faults together.
    """
    source = find_source(str(config.trainer.continue_from), Path(config.runs_dir).expanduser().absolute())
    raise_together(list(_faults(source, config, model_digest)))
    return source.digest


def _faults(source: Source, config: Config, model_digest: str | None) -> Iterator[str]:
    start = f"{KEY}={brief(str(config.trainer.continue_from))}"
    method, sheet = config.peft.method, vars(getattr(config, config.peft.method))
    theirs = _method(source)
    if method not in theirs and str(sheet.get("type", "")).lower() not in theirs:
        yield f"{start} was trained with peft={theirs[0]}, not with peft={method}; set peft={theirs[0]}"
        return
    why = NOT_WHOLE.get(method) or (
        NOT_WHOLE["p_tuning"] if method == "prefix_tuning" and sheet.get("prefix_projection") else None
    )
    if why:
        yield f"{start}: peft={method} {why}, so that no training can begin with it; leave {KEY} out"
        return
    if sheet.get("init_lora_weights", True) is not True:
        yield (
            f"{start} replaces the first weights, so that lora.init_lora_weights={sheet['init_lora_weights']} would "
            "have no effect; set lora.init_lora_weights=true"
        )
    yield from base_faults(start, source, config.model, model_digest)
    own = sheet["settings"] if method == "library" else sheet
    prefix = "library.settings" if method == "library" else method
    for key, value in own.items():
        if value is None or key in FREE or key not in source.adapter.settings or value == "all-linear":
            continue
        known = source.adapter.settings[key]
        if canonical(value) != canonical(known):
            wanted = f"{prefix}.{key}={_shown(known)}"
            yield f"{start} was trained with {wanted}, not with {prefix}.{key}={_shown(value)}; set {wanted}"


def config_faults(source: Source, config: Any) -> list[str]:
    """Settings in which PEFT's configuration on the model differs from the source's, once all are known."""
    faults = []
    for key, value in config.to_dict().items():
        known = source.adapter.settings.get(key)
        pattern = key.endswith("modules") and isinstance(known, str)  # then the names of the weights tell
        if key not in FREE and not pattern and key in source.adapter.settings and canonical(value) != canonical(known):
            faults.append(f"{key}={_shown(known)}, not {_shown(value)}")
    return faults


def _method(source: Source) -> tuple[str, ...]:
    """The methods of the harness that may have made the adapter, the likeliest first."""
    if source.run is not None:
        settings = source.run["plan"]["settings"]
        kind = str(settings["type"]).lower() if source.run["method"] == "library" else None
        return (source.run["method"], *([kind] if kind else []))
    try:
        return (str(json.loads((source.adapter.folder / ADAPTER_NOTE).read_text(encoding="utf-8"))["method"]),)
    except (OSError, ValueError, TypeError, KeyError):
        found = source.adapter.method
        deep = found == "prefix_tuning" and not source.adapter.settings.get("prefix_projection")
        return ("p_tuning_v2", "prefix_tuning") if deep else (found,)


def base_faults(start: str, source: Source, model: Model, digest: str | None) -> Iterator[str]:
    """Why the source was trained on another base than ``model``, whose weights have this digest."""
    if source.run is not None:
        theirs = source.run["plan"]
        known = theirs["inputs"].get("model")
        named = theirs["model"]
        same = known == digest if known or digest else named["path"] == model.path
        if not same or float(named.get("prune") or 0) != model.prune:
            yield (
                f"{start} was trained on another base ({named['name']}), not on model={model.name}; choose its model"
            )
        return
    if source.adapter.is_of_other_base(model.path):
        wanted = f"model.path={source.adapter.base}"
        yield f"{start} says that it was trained on {source.adapter.base}, not on model.path={model.path}; set {wanted}"


def canonical(value: Any) -> Any:
    """A setting as JSON has it, with names in rising order."""
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, set | frozenset | list | tuple):
        items = [canonical(item) for item in value]
        return sorted(items, key=str)
    return None if value in ("none", False, {}) else value


def _shown(value: Any) -> str:
    found = canonical(value)
    if found is None:
        return "null" if value is None else json.dumps(value, default=str)
    return found if isinstance(found, str) else json.dumps(found, default=str)
