"""What of a plan has an effect: two plans that would do the same have one fingerprint.

``without_idle`` takes the plan as a record keeps it and leaves out what cannot change its result: names, the spelling
of paths whose content is hashed, the order of names in a list, settings that others switch off.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from harness.methods.context import SEEDS
from harness.methods.library import CAVEATS
from harness.scoring.catalog import JUDGE, reads_answers

# Lists of names or numbers of which only the set matters.
UNORDERED = (
    *("target_modules", "exclude_modules", "modules", "modules_to_save", "feedforward_modules", "target_parameters"),
    *("layers_to_transform", "layers_pattern", "token_indices"),
)

PLAIN_NAME = re.compile(r"[\w.-]*")  # no regular expression, but for the dot, which then means itself

# Settings of a sheet that do nothing unless another setting switches them on.
IDLE_SETTINGS: dict[tuple[str, str], Callable[[Mapping[str, Any]], bool]] = {
    ("prompt_tuning", "prompt_tuning_init_text"): lambda sheet: sheet["prompt_tuning_init"] != "TEXT",
    ("prefix_tuning", "encoder_hidden_size"): lambda sheet: not sheet["prefix_projection"],
    ("p_tuning", "encoder_num_layers"): lambda sheet: sheet["encoder_reparameterization_type"] != "LSTM",
    ("oft", "eps"): lambda sheet: not sheet["coft"],
    ("oft", "num_cayley_neumann_terms"): lambda sheet: not sheet["use_cayley_neumann"],
    ("cpt", "opt_loss_decay_factor"): lambda sheet: sheet["opt_weighted_loss_type"] == "none",
    ("cpt", "num_virtual_tokens"): lambda sheet: sheet["cpt_token_ids"] is not None,
    ("trainable_tokens", "frequent_tokens"): lambda sheet: sheet["token_indices"] is not None,
}


def without_idle(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without what cannot change its result."""
    return {
        **plan,
        "settings": _settings(plan),
        "model": _model(plan["model"]),
        "data": _data(plan["data"], local="data" in plan["inputs"]),
        "trainer": _trainer(plan["trainer"], hashed="teacher" in plan["inputs"]),
        "scoring": _scoring(plan),
    }


def in_canonical_order(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method, with each list of which only the set matters in rising order, without doubles."""
    return {key: _as_set(value) if key in UNORDERED else value for key, value in settings.items()}


def _as_set(value: Any) -> Any:
    return sorted(set(value), key=lambda item: (str(type(item)), item)) if isinstance(value, list) else value


def _settings(plan: dict[str, Any]) -> dict[str, Any]:
    method, sheet = plan["method"], plan["settings"]
    own = sheet["settings"] if method == "library" and isinstance(sheet.get("settings"), dict) else sheet
    used = {
        key: value
        for key, value in in_canonical_order(own).items()
        if not ((method, key) in IDLE_SETTINGS and _is_idle(method, key, sheet))
    }
    # A seed of the method's own that is the run's is what null means.
    used |= {key: None for key in SEEDS if key in used and used[key] == plan["seed"]}
    used = {key: _pattern(value) if key.endswith("_pattern") else value for key, value in used.items()}
    return used if own is sheet else {**sheet, "settings": used}


def _is_idle(method: str, key: str, sheet: Mapping[str, Any]) -> bool:
    try:
        return IDLE_SETTINGS[method, key](sheet)
    except KeyError:  # a record of another version, whose sheet lacks the switch
        return False


def _pattern(value: Any) -> Any:
    """Entries of a pattern as pairs: PEFT takes the first that matches, so their order counts, unless none overlap."""
    if not isinstance(value, dict):
        return value
    pairs = [[key, item] for key, item in value.items()]
    names = list(value)
    plain = all(PLAIN_NAME.fullmatch(name) for name in names)
    overlap = any(one != other and one.endswith(f".{other}") for one in names for other in names)
    return sorted(pairs) if plain and not overlap else pairs


def _model(model: dict[str, Any]) -> dict[str, Any]:
    """Without its name and, if its content is hashed, without where it is."""
    idle = {"name"}
    source = model["source"]
    if source in ("folder", "gguf"):
        idle |= {"path", "revision"}
    if source != "package":
        idle |= {"packages", "sha256"}
    used = {key: value for key, value in model.items() if key not in idle}
    return used | {"device": str(used["device"]).partition(":")[0]}  # which of several is a matter of the machine


def _data(data: dict[str, Any], local: bool) -> dict[str, Any]:
    idle = {"name", *({"path", "revision", "subset"} if local else ())}
    used = {key: value for key, value in data.items() if key not in idle}
    named = {split: name for split, name in data["splits"].items() if name is not None and split != "train"}
    if local:
        used["splits"] = sorted(named)  # the content of the files is hashed
    used["fractions"] = {split: value for split, value in data["fractions"].items() if split not in named}
    if not used["fractions"] and all(limit is None for limit in data["limits"].values()):
        used.pop("split_seed", None)  # nothing is drawn
    unread = ("instruction", "input", "output") if data["format"] == "messages" else ("messages",)
    used["columns"] = {column: name for column, name in data["columns"].items() if column not in unread}
    if keep := used["columns"].pop("keep", None):
        used["columns"]["keep"] = sorted(set(keep))
    for name in ("options", "rejected", "weight"):
        if used["columns"].get(name) is None:
            used["columns"].pop(name, None)  # records of earlier versions lack it
    return used


def _trainer(trainer: dict[str, Any], hashed: bool) -> dict[str, Any]:
    return {key: value for key, value in trainer.items() if not (hashed and key == "teacher")}


def _scoring(plan: dict[str, Any]) -> dict[str, Any]:
    used = dict(plan["scoring"])
    used["metrics"] = sorted(set(used["metrics"]))
    if "forgetting" in plan["inputs"]:
        used["forgetting"] = True  # the content is hashed
    if independent_of_batches(plan):
        used.pop("loss_batch_size", None)
        used["generation"] = {key: value for key, value in used["generation"].items() if key != "batch_size"}
    if not any(map(reads_answers, used["metrics"])):
        used.pop("generation", None)
        used.pop("tokenize", None)
    if all(map(reads_answers, used["metrics"])):
        used.pop("choices", None)
    judge = used.pop("judge", None)
    if judge and JUDGE in used["metrics"]:
        # The content of its weights is hashed.
        used["judge"] = {key: value for key, value in judge.items() if key not in ("model", "batch_size")}
    tasks = used.pop("lm_eval", None)
    if tasks and tasks["tasks"]:
        idle = ("include_path", *(("batch_size",) if independent_of_batches(plan) else ()))  # its content is hashed
        used["lm_eval"] = {key: value for key, value in tasks.items() if key not in idle}
        used["lm_eval"]["tasks"] = sorted(set(tasks["tasks"]))
    return used


def independent_of_batches(plan: dict[str, Any]) -> bool:
    """Whether scores are the same however many rows are scored at once: greedy answers in float32.

    Sampled answers depend on their neighbors, lower precision on how sums are cut, and some methods look at the whole
    batch.
    """
    model, settings = plan["model"], plan["settings"]
    return (
        model["dtype"] == "float32"
        and model["quantization"] == "none"
        and not plan["scoring"]["generation"]["do_sample"]
        and str(settings.get("type", "")).lower() not in CAVEATS
    )
