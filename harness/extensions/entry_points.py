"""Methods that packages offer: entry points of the group ``peft_harness.methods``.

    [project.entry-points."peft_harness.methods"]
    scaled = "my_study.methods:scaled"

The name is the method's, the value an import path of a ``harness.methods.method.Method``. Entry points count if their
package is installed, or if they stand in the ``pyproject.toml`` of the folder that the command is started in. The
method's values are in ``conf/peft/<name>.yaml`` of the package; so can be options of any other group.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.errors import HarnessError
from harness.extensions import imports
from harness.extensions.sources import module_file

GROUP = "peft_harness.methods"
CONF = "conf"  # folder of a package


@dataclass(frozen=True)
class Offer:
    """One entry point."""

    name: str
    path: str  # import path
    source: str  # who offers it, in words

    @property
    def key(self) -> str:
        """The setting that a message names."""
        return f"{GROUP}: {self.name}"

    @property
    def conf(self) -> Path | None:
        """The folder ``conf`` of its package; None if its module is no package, or has none."""
        file = module_file(self.path.partition(".")[0].partition(":")[0])
        folder = file.parent / CONF if file is not None and file.name == "__init__.py" else None
        return folder if folder is not None and folder.is_dir() else None


@cache
def offers() -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """Every entry point once, in the order of names, and what is wrong with the files that they stand in."""
    found, faults = _of_project(imports.project_folder())
    for each in metadata.entry_points(group=GROUP):
        owner = each.dist
        source = f"the package {owner.metadata['Name']} {owner.version}" if owner else "an installed package"
        found.append(Offer(each.name, each.value.replace(" ", ""), source))
    # An installed package whose folder the command is started in offers everything twice.
    once = {(each.name, each.path): each for each in reversed(found)}
    return tuple(sorted(once.values(), key=lambda each: (each.name, each.path))), tuple(faults)


def _of_project(folder: Path) -> tuple[list[Offer], list[str]]:
    """What ``pyproject.toml`` of a folder offers, so that a study need not be installed."""
    file = folder / "pyproject.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        listed = content.get("project", {}).get("entry-points", {}).get(GROUP, {})
        offered = [Offer(str(name), str(path).replace(" ", ""), f"{file}") for name, path in listed.items()]
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, AttributeError) as error:
        return [], [f"{file} cannot be read ({error}); fix it, or start the command in another folder"]
    if offered:
        imports.import_from(folder)
    return offered, []


def conf_folders() -> tuple[Path, ...]:
    """The folders ``conf`` of the packages that offer methods, each once."""
    try:
        found = [each.conf for each in offers()[0]]
    except HarnessError:
        return ()
    return tuple(dict.fromkeys(folder for folder in found if folder is not None))
