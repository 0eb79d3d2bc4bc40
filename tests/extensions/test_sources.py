"""Which files stand behind an import path, and that an edit of any of them changes the hash."""

import pytest

from harness.errors import ConfigFault
from harness.extensions import sources
from tests.support.own_code import importable

FILES = {
    "own_s/__init__": "",
    "own_s/metrics": "from . import words\nimport own_beside, json, torch\ndef f():\n    from own_s.deep import late\n",
    "own_s/words": "",
    "own_s/deep/__init__": "from .inner import x\n",
    "own_s/deep/late": "",
    "own_s/deep/inner": "",
    "own_s/unused": "",
    "own_beside": "",
}


def code(folder, path="own_s.metrics:f"):
    sources.module_file.cache_clear()
    with importable(folder):
        return sources.code_of("scoring.metrics", path)


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_module_counts_with_what_it_imports_of_the_users_own(folder):
    found = code(folder)
    assert sorted(found.files) == [
        *("own_beside", "own_s", "own_s.deep", "own_s.deep.inner", "own_s.deep.late", "own_s.metrics", "own_s.words")
    ]
    assert found.distribution is None
    assert found.path == "own_s.metrics:f"


@pytest.mark.parametrize(("edited", "changes"), [("own_s/words", True), ("own_beside", True), ("own_s/unused", False)])
def test_an_edit_of_a_file_that_counts_changes_the_hash(folder, edited, changes):
    before = code(folder)
    (folder / f"{edited}.py").write_text("x = 1\n")
    assert (code(folder).sha256 != before.sha256) == changes


def test_line_ends_of_a_checkout_do_not_count(folder):
    before = code(folder)
    file = folder / "own_s" / "metrics.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert code(folder).sha256 == before.sha256


def test_nothing_is_imported(folder):
    (folder / "own_s" / "words.py").write_text("raise SystemExit")
    code(folder)


def test_a_file_that_python_cannot_read_counts_by_its_bytes(folder):
    (folder / "own_s" / "words.py").write_text("def (:")
    assert "own_s.words" in code(folder).files


def test_code_without_a_source_file_is_refused(folder):
    with pytest.raises(ConfigFault, match="sys:exit: sys has no source file"):
        code(folder, "sys:exit")
