"""The order of the packages: each imports only packages that stand below it.

The check reads every import of ``harness/`` and ``hydra_plugins/``, those inside functions and those for annotations
alone included.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# From the command to the values it computes with. A package may import itself and whatever stands below it.
ORDER = (
    *(
        "testing",
        "stages",
        "sweep",
        "pipeline",
        "estimate",
        "training",
        "adapters",
        "report",
        "plan",
        "scoring",
        "models",
        "data",
    ),
    *("trackers", "record", "config", "methods", "extensions", "runtime", "tuners"),
)
TOP = ("__init__", "__main__", "cli", "errors", "frozen", "shipped")  # modules directly under harness/
LOWEST = ("errors", "frozen", "shipped")  # every package may import these


def modules(root: Path) -> dict[str, Path]:
    """Source files by dotted name."""
    files = [*(root / "harness").rglob("*.py"), *(root / "hydra_plugins").rglob("*.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(name: str, file: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Modules of ours that this one imports, with the line."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                if f"{source}.{alias.name}" in known:
                    yield f"{source}.{alias.name}", node.lineno
                elif source in known:
                    yield source, node.lineno


def room(name: str) -> str:
    """The package of a module; for one directly under ``harness/``, its own name."""
    parts = name.split(".")
    return "hydra_plugins" if parts[0] == "hydra_plugins" else parts[1] if len(parts) > 1 else "harness"


def faults(root: Path) -> list[str]:
    """Every import against the order, every circle of files, and every package that the order lacks."""
    known = modules(root)
    graph = {name: list(imports(name, file, known)) for name, file in known.items()}
    found = [f"harness/{name} is in no place of the order" for name in sorted({*map(room, known)} - {*ORDER, *TOP})
             if name not in ("harness", "hydra_plugins")]  # fmt: skip
    for name, targets in graph.items():
        here = room(name)
        for target, line in targets:
            there = room(target)
            if there == here or there in LOWEST or here in ("hydra_plugins", "__main__", "cli"):
                continue
            if here in LOWEST or here not in ORDER or there not in ORDER or ORDER.index(there) < ORDER.index(here):
                found.append(f"{name}:{line} imports {target}: {there} stands above {here}")
    return found + [f"circle: {' -> '.join(circle)}" for circle in circles(graph)]


def circles(graph: dict[str, list[tuple[str, int]]]) -> Iterator[list[str]]:
    """One path for each circle of files that a depth-first walk meets."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
            return
        if name in done:
            return
        for target, _ in graph[name]:
            if target != name:
                yield from walk(target, [*path, name])
        done.add(name)

    for name in graph:
        yield from walk(name, [])


def test_packages_import_only_what_stands_below_them():
    assert faults(ROOT) == []


def test_few_modules_stand_directly_under_the_package():
    assert sorted(file.stem for file in (ROOT / "harness").glob("*.py")) == sorted(TOP)


def test_package_files_hold_a_docstring_alone():
    for file in (ROOT / "harness").rglob("__init__.py"):
        if file.parent.name == "tuners":  # harness.tuners.register() is public
            continue
        [statement] = ast.parse(file.read_text(encoding="utf-8")).body
        assert isinstance(statement, ast.Expr), file
        assert isinstance(statement.value, ast.Constant), file


@pytest.fixture
def copy(tmp_path):
    for name in ("harness", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("harness/report/notes.py", "from harness.sweep import cells", "sweep stands above report"),
        ("harness/data/rows.py", "def later():\n    import harness.models.base", "models stands above data"),
        ("harness/errors.py", "from harness.config import names", "config stands above errors"),
        ("harness/data/rows.py", "from harness.data import dataset", "circle: "),
        ("harness/extra/new.py", "", "harness/extra is in no place of the order"),
    ],
)
def test_a_wrong_import_is_found(copy, file, line, message):
    target = copy / file
    target.parent.mkdir(exist_ok=True)
    target.write_text((target.read_text(encoding="utf-8") if target.exists() else "") + f"\n{line}\n", encoding="utf-8")
    assert any(message in fault for fault in faults(copy))


@pytest.mark.parametrize(
    "module",
    [
        *("harness.cli", "harness.stages.status", "harness.config.names", "harness.plan.read"),
        *("harness.stages.plan", "harness.sweep.selection", "harness.estimate.plan_counter", "harness.runtime.threads"),
    ],
)
def test_imports_that_answer_at_once_leave_torch_out(module):
    code = f"import sys, {module}; sys.exit(any(each in sys.modules for each in ('torch', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
