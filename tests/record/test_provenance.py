"""Provenance: what decides whether a finished run replaces a new one, and which process owns a run."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time

import pytest

from harness.record import provenance


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package, so that a test may edit its sources."""
    package = tmp_path / "harness"
    shutil.copytree(provenance.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", package)
    provenance.code_version.cache_clear()
    provenance.git_state.cache_clear()
    yield package
    provenance.code_version.cache_clear()
    provenance.git_state.cache_clear()


def fresh_version():
    provenance.code_version.cache_clear()
    return provenance.code_version()


@pytest.mark.parametrize(
    "name",
    [
        "config/schema.py",
        "pipeline/tune.py",
        "scoring/metrics/rouge_l/rouge_l.py",
        "new_module.py",
        "new_package/module.py",
    ],
)
def test_editing_what_can_change_a_result_changes_the_code_version(copy, name):
    before = fresh_version()
    file = copy / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as stream:
        stream.write("\nx = 1\n")
    assert fresh_version() != before


@pytest.mark.parametrize(
    "name",
    [
        "report/table.py",
        "record/store.py",
        "record/provenance.py",
        "sweep/execute.py",
        "stages/plan.py",
        "__main__.py",
        "cli.py",
    ],
)
def test_editing_what_only_shows_keeps_the_code_version(copy, name):
    before = fresh_version()
    with open(copy / name, "a") as stream:
        stream.write("\nx = 1\n")
    assert fresh_version() == before


def test_line_ends_of_a_checkout_keep_the_code_version(copy):
    before = fresh_version()
    file = copy / "config" / "schema.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert fresh_version() == before


def test_another_peft_changes_the_code_version(monkeypatch):
    before = fresh_version()
    real = provenance.library_version
    monkeypatch.setattr(provenance, "library_version", lambda name: "99.0" if name == "peft" else real(name))
    assert fresh_version() != before
    monkeypatch.undo()
    assert fresh_version() == before


def test_versions_name_the_decisive_libraries_without_importing_them():
    code = "import sys; from harness.record import provenance, store; v = provenance.versions()"
    code += "; provenance.device_info(); print('torch' in sys.modules, {'torch', 'peft', 'python'} <= v.keys())"
    root = provenance.PACKAGE.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["False", "True"]


def test_outside_git_the_state_is_unknown(copy):
    assert provenance.git_state() == (None, None)


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_git_state_follows_the_sources_and_ignores_stray_files(copy):
    git(copy.parent, "init", "-q")
    git(copy.parent, "add", "harness")
    git(copy.parent, "commit", "-q", "-m", "x")
    (copy.parent / "stray.txt").write_text("x")
    clean = provenance.git_state()
    assert clean.dirty is False
    assert len(clean.commit) == 40
    (copy / "untracked.py").write_text("x = 1")
    provenance.git_state.cache_clear()
    assert provenance.git_state() == clean._replace(dirty=True)


def test_a_copy_inside_a_foreign_repository_has_no_commit(copy):
    git(copy.parent, "init", "-q")
    git(copy.parent, "commit", "-q", "--allow-empty", "-m", "theirs")
    assert provenance.git_state() == (None, None)


def test_git_state_ignores_the_environment_of_a_hook(copy, monkeypatch, tmp_path):
    git(copy.parent, "init", "-q")
    git(copy.parent, "add", "harness")
    git(copy.parent, "commit", "-q", "-m", "x")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance.git_state().dirty is False


def test_without_git_the_state_is_unknown(monkeypatch):
    provenance.git_state.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() == (None, None)
    provenance.git_state.cache_clear()


def test_this_process_is_alive_and_another_host_cannot_be_asked():
    mine = provenance.owner()
    assert provenance.alive(mine) is True
    assert provenance.alive(mine | {"host": "elsewhere"}) is None


def test_a_dead_process_and_a_reused_id_are_not_alive():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    dead = {"host": provenance.owner()["host"], "pid": child.pid}
    child.join()
    assert provenance.alive(dead) is False
    mine = provenance.owner()
    assert provenance.alive(mine | {"pid_started": mine["pid_started"] - 3600}) is False


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet reaped
    assert provenance.alive({"host": provenance.owner()["host"], "pid": child.pid}) is False
    child.wait()


def test_device_info_names_the_device_it_was_asked_about():
    assert provenance.device_info("cpu")["type"] == "cpu"
    assert provenance.device_info()["type"] is None
    assert provenance.device_info("cpu")["machine_memory_bytes"] > 2**20
