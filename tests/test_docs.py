"""The documents match the tree: links, names of files, the generated tables."""

import importlib
import re
import shlex
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.config.compose import register_schema
from harness.config.free_text import quote_free_text
from tests.support.configs import CONF
from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*/*.md")])
SOURCES = [
    *(path for folder in ("harness", "hydra_plugins", "scripts", "tests") for path in ROOT.glob(f"{folder}/**/*.py")),
    *(path for path in ROOT.glob("scripts/*") if path.is_file()),
    *ROOT.glob("conf/**/*.yaml"),
]
PLANTED = {"harness/extra/new.py"}  # test_architecture plants a wrong import there
MENTION = r"(?<![\w/.-])((?:docs|scripts|tests|conf|harness)/[\w/.-]*\w\.(?:md|py|yaml|json))(?!\w)"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of scripts/docs/ by name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    yield importlib.import_module
    for name in ("capability_table", "metrics_table", "learning_rates", "sections"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert broken == []


def test_files_that_pages_and_sources_mention_exist():
    missing = []
    for file in sorted({*PAGES, *SOURCES}):
        mentioned = re.findall(MENTION, file.read_text(encoding="utf-8"))
        absent = [name for name in mentioned if name not in PLANTED and not (ROOT / name).exists()]
        missing += [f"{file.relative_to(ROOT)}: {name}" for name in absent]
    assert missing == []


def documented_commands():
    """The words after ``-m harness`` of every command in the pages, with ``x`` for placeholders."""
    for page in PAGES:
        if page.stem == "extending":  # its files are not here; test_extending runs its commands beside them
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *(?:python|torchrun|accelerate) .*?-m harness(?![\w.])(.*)$", text, re.MULTILINE):
            words = shlex.split(re.sub(r"<[^>]*>", "x", line), comments=True)
            yield tuple(word for word in words if word not in ("-m", "--help"))


@pytest.mark.slow
@pytest.mark.parametrize("words", sorted(set(documented_commands())), ids=" ".join)
def test_documented_command_composes(words):
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = [
            each for each in parser.parse_overrides(quote_free_text(list(words))) if "interval" not in each.input_line
        ]
        [[first, *_]] = BasicSweeper.split_arguments(parsed, None)
        assert compose("config", overrides=list(first), return_hydra_config=True).stage


def test_readme_lists_the_pages_of_docs():
    listed = re.search(r"^    docs/ +(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert sorted(listed.split(", ")) == sorted(page.stem for page in ROOT.glob("docs/*.md"))


@pytest.mark.parametrize(
    "name", [pytest.param("capability_table", marks=pytest.mark.slow), "metrics_table", "learning_rates"]
)
def test_generated_tables_are_up_to_date(script, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--check"])
    assert script(name).main() == 0, capsys.readouterr().err


def test_stale_table_is_reported_by_check_and_rewritten_without_it(script, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table:one -->\n| old |\n<!-- /table:one -->\nafter\n", encoding="utf-8")

    def update(*arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        return script("sections").update(tmp_path, [("page.md", "one", ["| new |"])], "script.py", None)

    assert update("--check") == 1
    assert "| old |" in page.read_text(encoding="utf-8")
    assert update() == 0
    assert page.read_text(encoding="utf-8") == "before\n<!-- table:one -->\n| new |\n<!-- /table:one -->\nafter\n"
    assert update("--check") == 0


def test_page_without_markers_is_refused(script):
    with pytest.raises(SystemExit, match="must have the markers"):
        script("sections").between("no markers", "library", "")
