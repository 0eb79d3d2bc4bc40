"""``peft-harness new my_study``: the files of a study that extends the harness.

The folder is a Python package with its own configuration options, one method, one metric, one prompt template, rows, a
test and a README. It runs as it is, without being installed, from its own folder.
"""

import keyword
import os
import re
from pathlib import Path
from string import Template

from harness.config.names import config_groups
from harness.config.schema import SHEETS
from harness.errors import ConfigFault, raise_together
from harness.shipped import VERSION

STARTER = Path(__file__).resolve().parent / "starter"
USAGE = "usage: peft-harness new NAME, for example peft-harness new my_study (also: python -m harness new my_study)"

# Files of a study, with the starter file of each.
FILES = {
    "README.md": "README.md.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "{name}/__init__.py": "init.py.txt",
    "{name}/methods.py": "methods.py.txt",
    "{name}/metrics.py": "metrics.py.txt",
    "{name}/conf/peft/{method}.yaml": "peft.yaml.txt",
    "{name}/conf/data/{name}.yaml": "data.yaml.txt",
    "{name}/conf/experiment/{name}.yaml": "experiment.yaml.txt",
    "rows.jsonl": "rows.jsonl.txt",
    "tests/test_{name}.py": "test.py.txt",
    ".gitignore": "gitignore.txt",
}


def new_study(arguments: list[str], here: Path) -> list[Path]:
    """Write the files of a new study into a new folder; return them.

    Args:
        arguments: what follows ``new`` on the command line.
        here: the folder in which the new one is made.

    Raises:
        ConfigFault: the name cannot be one of a package, or the folder exists.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ConfigFault(f"new: {' '.join(arguments) or 'no name'} is not one name; {USAGE}")
    name = arguments[0]
    raise_together(_name_faults(name))
    folder = here / name
    if os.path.lexists(folder):
        raise ConfigFault(f"new: {folder} exists, and nothing in it is overwritten; choose another name, or remove it")
    words = {"name": name, "method": f"{name}_lora", "distribution": name.replace("_", "-"), "version": VERSION}
    words["Sheet"] = "".join(part.capitalize() for part in words["method"].split("_"))
    written = []
    try:
        folder.mkdir(parents=True)
        for place, source in FILES.items():
            path = folder / place.format(**words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_Text((STARTER / source).read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ConfigFault(f"new: {folder} cannot be written ({error.strerror}); start the command elsewhere") from error
    return written


class _Text(Template):
    """``@name@`` in a starter file is replaced; YAML and Jinja use the dollar and braces themselves."""

    delimiter = "@"
    pattern = r"@(?:(?P<escaped>@)|(?P<named>[A-Za-z]+)@|(?P<braced>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


def _name_faults(name: str) -> list[str]:
    """Why a study cannot have this name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return [f"new: {name} cannot be a Python package; use lower-case letters, digits and _, such as my_study"]
    taken = {"harness", "hydra_plugins", "tests", "test", "conf", "runs", *SHEETS}
    taken |= {option for options in config_groups().values() for option in options}
    if name in taken or f"{name}_lora" in taken:
        return [f"new: {name} is already the name of something in the harness; choose another one, such as my_{name}"]
    return []
