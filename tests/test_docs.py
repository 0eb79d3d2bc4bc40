"""What the documents point to is there."""

import re

import pytest

from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*/*.md")])
SOURCES = sorted([*ROOT.glob("harness/**/*.py"), *ROOT.glob("scripts/*"), *ROOT.glob("conf/**/*.yaml")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert broken == []


def test_documents_and_scripts_that_are_named_exist():
    missing = []
    for file in [*PAGES, *SOURCES]:
        if file.is_file():
            named = re.findall(r"\b(?:docs|scripts)/[a-z_]+(?:\.md|\.py)\b", file.read_text(encoding="utf-8"))
            missing += [f"{file.relative_to(ROOT)}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_readme_lists_the_pages_of_docs():
    said = re.search(r"^    docs/ +(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert sorted(said.split(", ")) == sorted(
        page.stem if page.stem != "record" else "records" for page in ROOT.glob("docs/*.md")
    )
