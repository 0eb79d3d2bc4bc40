"""The documents match the tree: links, names of files, the generated tables."""

import importlib
import re
import sys

import pytest

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
def capability_table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    yield importlib.import_module("capability_table")
    sys.modules.pop("capability_table")


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


def test_readme_lists_the_pages_of_docs():
    listed = re.search(r"^    docs/ +(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert sorted(listed.split(", ")) == sorted(page.stem for page in ROOT.glob("docs/*.md"))


@pytest.mark.slow
def test_generated_tables_are_up_to_date(capability_table, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["capability_table.py", "--check"])
    assert capability_table.main() == 0, capsys.readouterr().err


def test_stale_table_is_reported_by_check_and_rewritten_without_it(capability_table, monkeypatch, tmp_path):
    (tmp_path / "docs").mkdir()
    page = "<!-- table:{0} -->\n| old |\n<!-- /table:{0} -->\n"
    (tmp_path / "README.md").write_text(page.format("capabilities"), encoding="utf-8")
    (tmp_path / "docs" / "methods.md").write_text(page.format("library"), encoding="utf-8")
    monkeypatch.setattr(capability_table, "ROOT", tmp_path)
    monkeypatch.setattr(capability_table, "sheets", lambda: iter(["| new |"]))
    monkeypatch.setattr(sys, "argv", ["capability_table.py", "--check"])
    assert capability_table.main() == 1
    assert "| old |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["capability_table.py"])
    assert capability_table.main() == 0
    assert "| new |" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_page_without_markers_is_refused(capability_table):
    with pytest.raises(SystemExit, match="must have the markers"):
        capability_table.between("no markers", "library", "")
