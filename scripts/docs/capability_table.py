#!/usr/bin/env python
"""Write the capability tables of README.md and docs/methods.md from the code.

    python scripts/docs/capability_table.py           # rewrites the sections between the markers
    python scripts/docs/capability_table.py --check   # writes nothing, exits with 1 if a section is stale

The tables show the traits of each method (``harness.methods.traits``); tests check every trait against what the method
does. Parameters are counted on the meta device from the published dimensions of each model, at the default settings.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from sections import row, update

from harness.errors import ModelFault
from harness.estimate import parameters
from harness.methods.library import LIBRARY
from harness.methods.registry import METHODS, traits_of
from harness.methods.traits import Traits

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"qwen1_5_1_8b_chat": "Qwen1.5-1.8B", "smollm2_135m": "SmolLM2-135M", "gemma3_270m": "Gemma 3 270M"}
COLUMNS: dict[str, Callable[[Traits], bool]] = {
    "merges": lambda can: can.mergeable,
    "starts as base": lambda can: can.identity_at_start,
    "nf4": lambda can: can.nf4,
    "int8": lambda can: can.int8,
    "check-pointing": lambda can: can.checkpointing,
    "dropout": lambda can: can.dropout,
    "trains tied emb.": lambda can: can.tied_embeddings,
    "multi-adapter": lambda can: can.multi_adapter,
    "GPT-2": lambda can: can.conv1d,
}
LIBRARY_COLUMNS = {name: COLUMNS[name] for name in COLUMNS if name not in ("dropout", "trains tied emb.")}
INITIALIZATIONS = ("gaussian", "eva", "orthogonal", "mica", "pissa", "corda", "lora_ga", "olora", "loftq")
ARCHITECTURE = r"\b\w+ForCausalLM\b"  # replaced in footnotes, so that models with the same limit share one
Notes = dict[str, int]  # text of a footnote -> its number


def main() -> int:
    """Rewrite the sections, or report which are stale."""
    sections = (("README.md", "capabilities", sheets()), ("docs/methods.md", "library", library()))
    return update(ROOT, sections, "scripts/docs/capability_table.py", __doc__)


def sheets() -> Iterator[str]:
    """Lines of the table of methods; initializations of LoRA with other traits have rows of their own."""
    notes: Notes = {}
    configs = {model: config_of(model) for model in MODELS}
    yield row("`peft=`", *COLUMNS, *MODELS.values())
    yield row("---", *[":-:"] * len(COLUMNS), *["--:"] * len(MODELS))
    for method in METHODS:
        if method == "library":
            continue
        counts = [trained(config, method, notes) for config in configs.values()]
        yield row(f"`{method}`", *cells(METHODS[method].traits, COLUMNS, notes), *counts)
        if method == "lora":
            for names, can in initializations():
                yield row(f"… from {', '.join(names)}", *cells(can, COLUMNS, notes), *["as `lora`"] * len(configs))
    yield from footnotes(notes)


def library() -> Iterator[str]:
    """Lines of the table of types that are available only as ``peft=library``."""
    notes: Notes = {}
    yield row("`library.type=`", *LIBRARY_COLUMNS)
    yield row("---", *[":-:"] * len(LIBRARY_COLUMNS))
    for kind, can in LIBRARY.items():
        yield row(f"`{kind}`", *cells(can, LIBRARY_COLUMNS, notes))
    yield from footnotes(notes)


def initializations() -> list[tuple[list[str], Traits]]:
    """Initializations of LoRA whose traits differ from the default's, grouped by traits."""
    groups: dict[Traits, list[str]] = {}
    for init in INITIALIZATIONS:
        groups.setdefault(traits_of("lora", {"init_lora_weights": init}), []).append(init)
    groups.pop(METHODS["lora"].traits)
    return [(names, can) for can, names in groups.items()]


def config_of(model: str) -> Mapping[str, Any]:
    """The published dimensions in ``conf/model``."""
    node: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{model}.yaml"), resolve=False)
    return node["config_only"]


def trained(config: Mapping[str, Any], method: str, notes: Notes) -> str:
    """Trainable parameters with their percentage, or a dash and the reason."""
    try:
        counts = parameters.count_trainable(config, method, {})
    except ModelFault as fault:
        reason = str(fault).rpartition("does not fit this model: ")[2].rstrip(".")
        return f"– {mark(re.sub(ARCHITECTURE, 'the model', reason), notes)}"
    percent = 100 * counts.share
    return f"{counts.trainable:,} ({percent:.0f} %)" if percent >= 10 else f"{counts.trainable:,} ({percent:.2g} %)"


def cells(can: Traits, columns: Mapping[str, Callable[[Traits], bool]], notes: Notes) -> list[str]:
    """A check mark or a dash per column; a dash under nf4 or int8 carries the reason as a footnote."""
    shown = []
    for name, has in columns.items():
        reason = f" {mark(can.why_unquantized, notes)}" if name in ("nf4", "int8") else ""
        shown.append("✓" if has(can) else f"–{reason}")
    return shown


def mark(text: str, notes: Notes) -> str:
    """The number of a footnote in brackets; equal texts share a number."""
    return f"[{notes.setdefault(text, len(notes) + 1)}]"


def footnotes(notes: Notes) -> Iterator[str]:
    """The footnotes as one paragraph, a line each."""
    yield ""
    for text, number in notes.items():
        yield f"[{number}] {text}" + ("\\" if number < len(notes) else "")


if __name__ == "__main__":
    sys.exit(main())
