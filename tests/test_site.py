"""The documents build into a site that needs no network, and a link that leads nowhere ends the build."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed")
pytest.importorskip("material", reason="mkdocs-material is not installed")

# What a page would load from elsewhere; links that a reader follows are no part of it.
LOADED = re.compile(
    r'<(?:script|img|iframe|source)[^>]* src="(?:https?:)?//|<link[^>]* href="(?:https?:)?//(?!.*canonical)'
)


def build(root: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=500, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )


@pytest.mark.slow
def test_the_site_builds_with_links_checked_and_loads_nothing_from_elsewhere(tmp_path):
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    assert {page.stem for page in ROOT.glob("docs/*.md")} <= {name.removesuffix(".html") for name in pages}
    assert "Which parameter-efficient fine-tuning method" in pages["index.html"]
    assert "命令" in pages["README.zh-CN.html"]
    assert [name for name, text in pages.items() if LOADED.search(text)] == []
    styles = [sheet.read_text(encoding="utf-8") for sheet in tmp_path.rglob("*.css")]
    assert not any(re.search(r"url\([\"']?(?:https?:)?//|@import", style) for style in styles)


@pytest.mark.slow
def test_links_and_anchors_that_lead_nowhere_end_the_build(tmp_path):
    for name in ("README.md", "README.zh-CN.md", "CHANGELOG.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("docs", "scripts", "conf", "harness"):
        (tmp_path / name).symlink_to(ROOT / name) if name != "docs" else shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "LICENSE", tmp_path)
    page = tmp_path / "docs" / "faq.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n[a](nowhere.md) [b](data.md#nowhere)\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#nowhere" in done.stderr
