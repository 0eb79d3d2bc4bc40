"""Hooks of mkdocs.yml: pages from outside docs/, links that leave it, and pages that no one has sorted in yet.

The pages are written to be read in the repository. Links there go from file to file, so here a link to a page outside
docs/ becomes one to its place in the site, and a link to any other file brings a copy of that file along.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# Pages outside docs/, and their names in the site.
OUTSIDE = {"README.md": "index.md", "README.zh-CN.md": "README.zh-CN.md", "CHANGELOG.md": "CHANGELOG.md"}
SOURCE = "source"  # folder of the site for other files that pages link to
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)#\s]+)(?P<after>(?:#[^)\s]*)?\))")
CODE = re.compile(r"^(?: {4}[^\n]*|```.*?^```)$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of OUTSIDE and what pages link to; name pages that are in no section under More."""
    root = Path(config.config_file_path).parent
    for name, target in OUTSIDE.items():
        files.append(File.generated(config, target, content=(root / name).read_text(encoding="utf-8")))
    for page in files.documentation_pages():
        for name in linked(page.content_string, place_of(page.src_uri)):
            if site_place(name).startswith(SOURCE) and (root / name).is_file():
                copy = File.generated(config, site_place(name), abs_src_path=str(root / name))
                if copy.src_uri not in files.src_uris:
                    files.append(copy)
    rest = sorted({page.src_uri for page in files.documentation_pages()} - set(named(config.nav)))
    if rest:
        config.nav.append({"More": rest})
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the site."""
    here = page.file.src_uri
    return translated(markdown, place_of(here), here)


def place_of(src_uri: str) -> str:
    """Where a page of the site is in the repository."""
    return next((name for name, target in OUTSIDE.items() if target == src_uri), f"docs/{src_uri}")


def site_place(name: str) -> str:
    """Where a file of the repository is in the site."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{SOURCE}/{name}"


def linked(markdown: str, place: str) -> list[str]:
    """Files of the repository that a page links to."""
    targets = [found["target"] for found in LINK.finditer(CODE.sub("", markdown))]
    return [resolved(target, place) for target in targets if not re.match(r"[a-z]+:", target)]


def resolved(target: str, place: str) -> str:
    """A link of the page at ``place``, relative to the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), target))


def translated(markdown: str, place: str, here: str) -> str:
    """The page with links between places in the site; code is left alone."""

    def link(found: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", found["target"]):
            return found[0]
        target = site_place(resolved(found["target"], place))
        return f"{found['before']}{posixpath.relpath(target, posixpath.dirname(here) or '.')}{found['after']}"

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(link, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(link, markdown[end:])])


def named(nav: Any) -> list[str]:
    """The pages that a nav names, at any depth."""
    if isinstance(nav, str):
        return [nav]
    return [page for each in (nav.values() if isinstance(nav, dict) else nav) for page in named(each)]
