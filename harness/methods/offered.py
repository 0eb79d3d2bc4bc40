"""Methods of other packages: what ``peft_harness.methods`` offers, held to the form of a row of the table.

What cannot be used is left out of the table; its fault is raised when a command composes its configuration.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault
from harness.extensions import entry_points, imports
from harness.extensions.entry_points import GROUP, Offer
from harness.methods.fields import Sheet
from harness.methods.hooks import Hooks
from harness.methods.knobs import Knob
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import Traits

# Names that a sheet cannot have, because the configuration uses them.
RESERVED = (
    *("adapter_path", "archive", "budget", "bundle", "chat", "claim", "confirm", "data", "diff", "experiment"),
    *("export", "hydra", "import_results", "input", "keep", "levels", "model", "note", "paper", "peft", "plan"),
    *("prompt", "push", "refine", "report", "rerun", "run", "runs_dir", "scale", "scoring", "seed", "select"),
    *("serve", "stage", "sweep", "tags", "tracker", "trainer"),
)
_PARTS: dict[str, Any] = {"sheet": type, "traits": Traits, "hooks": Hooks, "rate": RateRule | None, "knobs": tuple}


@dataclass(frozen=True)
class Offered:
    """A method of another package."""

    method: Method
    path: str  # import path
    source: str  # who offers it, in words
    conf: Path  # folder with ``peft/<name>.yaml``


def offered_methods(built_in: Collection[str]) -> tuple[dict[str, Offered], list[str]]:
    """The methods of other packages by name, and why others cannot be used.

    Args:
        built_in: names that are taken.
    """
    offers, unreadable = entry_points.offers()
    found: dict[str, Offered] = {}
    faults = list(unreadable)
    for offer in offers:
        wrong = list(_name_faults(offer, built_in, offers))
        if not wrong:
            try:
                found[offer.name] = _checked(offer)
            except ConfigFault as fault:
                wrong = [str(fault)]
        faults += [f"{fault} ({offer.source})" for fault in wrong]
    return found, faults


def _name_faults(offer: Offer, built_in: Collection[str], offers: Collection[Offer]) -> Iterator[str]:
    name = offer.name
    others = [each for each in offers if each.name == name and each.path != offer.path]
    if name in built_in:
        yield f"{offer.key}={offer.path}: {name} is a method of the harness; give the entry point another name"
    elif name in RESERVED:
        yield f"{offer.key}={offer.path}: {name} is a setting of the harness; give the entry point another name"
    elif others:
        yield (
            f"{offer.key}={offer.path}: {others[0].source} offers {others[0].path} under the same name; uninstall one "
            "of them, or rename its entry point"
        )
    elif not (name.isidentifier() and name == name.lower()):
        yield f"{offer.key}={offer.path}: the name must be lower-case letters, digits and _, as in peft={name.lower()}"
    elif not imports.is_import_path(offer.path):
        yield f"{offer.key}={offer.path} is not an import path; write {GROUP}: {name}=my_pkg.methods:{name}"


def _checked(offer: Offer) -> Offered:
    """The method behind an entry point.

    Raises:
        ConfigFault: it cannot be imported, is no method, or its values do not fit its sheet.
    """
    method = imports.load(offer.key, offer.path)
    start = f"{offer.key}={offer.path}"
    if not isinstance(method, Method):
        raise ConfigFault(
            f"{start} is {imports.shown(method)}; it must be a harness.methods.method.Method(sheet, build, traits)"
        )
    for part, kind in _PARTS.items():
        if not isinstance(getattr(method, part), kind):
            raise ConfigFault(
                f"{start}: its {part} is {imports.shown(getattr(method, part))}; see harness.methods.method.Method"
            )
    if not (issubclass(method.sheet, Sheet) and dataclasses.is_dataclass(method.sheet)):
        raise ConfigFault(
            f"{start}: its sheet {method.sheet.__name__} must be a @dataclass(kw_only=True) that extends "
            "harness.methods.fields.Sheet"
        )
    if strays := [each for each in method.knobs if not isinstance(each, Knob)]:
        raise ConfigFault(f"{start}: {imports.shown(strays[0])} among its knobs is not a harness.methods.knobs.Knob")
    conf = offer.conf
    file = None if conf is None else conf / "peft" / f"{offer.name}.yaml"
    if conf is None or file is None or not file.is_file():
        package = offer.path.partition(".")[0].partition(":")[0]
        raise ConfigFault(
            f"{start}: its values are missing; write {package}/conf/peft/{offer.name}.yaml, in a package with an "
            "__init__.py, with the keys of its sheet"
        )
    _check_values(start, file, offer.name, method)
    return Offered(method, offer.path, offer.source, conf)


def _check_values(start: str, file: Path, name: str, method: Method) -> None:
    """The file names the method and gives each field of its sheet a value of its type."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigFault(f"{start}: {file} cannot be read ({str(error).splitlines()[0]}); fix it") from error
    values = content.get(name) if isinstance(content, Mapping) else None
    chosen: Any = content.get("peft") if isinstance(content, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(chosen, Mapping) or chosen.get("method") != name:
        raise ConfigFault(
            f"{start}: {file} must begin with `# @package _global_` and hold peft: {{method: {name}}} and {name}: with "
            "the values of its sheet"
        )
    if "@package _global_" not in file.read_text(encoding="utf-8").partition("\n")[0]:
        raise ConfigFault(f"{start}: {file} must begin with the line `# @package _global_`; add it")
    fields = {each.name for each in dataclasses.fields(method.sheet)}
    lacking, strays = sorted(fields - set(values)), sorted(set(map(str, values)) - fields)
    if lacking or strays:
        parts = [f"lacks {', '.join(lacking)}"] if lacking else []
        parts += [f"has {', '.join(strays)}, which the sheet lacks"] if strays else []
        raise ConfigFault(f"{start}: {file} {' and '.join(parts)}; give every field of the sheet one value")
    try:
        OmegaConf.merge(OmegaConf.structured(method.sheet), values)
    except OmegaConfBaseException as error:
        raise ConfigFault(f"{start}: {file}: {str(error).splitlines()[0]}; correct the value") from error
