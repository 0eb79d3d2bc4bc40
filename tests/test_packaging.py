"""The files for citing and for containers parse, and what they mention exists."""

import fnmatch
import json
import re
import tomllib

import pytest
import yaml

from harness.shipped import VERSION
from tests.support.paths import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]


def instructions(name):
    """The lines of the Dockerfile that begin with this instruction, without it."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)


def copied():
    """Files and folders that the Dockerfile copies from the checkout."""
    return [word for line in instructions("COPY") for word in line.split()[:-1]]


def test_the_citation_names_this_version_and_license():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == VERSION == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert all(author["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8") for author in citation["authors"])


def test_the_dockerfile_copies_what_exists_and_what_the_wheel_needs():
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    wheel = SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], PROJECT["readme"], "pyproject.toml", "constraints.txt"}
    assert needed <= set(copied())


def test_the_dockerfile_installs_from_the_lock_file_and_runs_the_console_script():
    [install] = [line for line in instructions("RUN") if "pip install" in line]
    assert install == "pip install --constraint constraints.txt ."
    [entry] = instructions("ENTRYPOINT")
    assert set(json.loads(entry)) <= PROJECT["scripts"].keys()
    first = re.match(r"python:(\d+)\.(\d+)-", instructions("FROM")[0])
    assert (int(first[1]), int(first[2])) >= (3, 11)


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "harness", "conf", "data"]
)
def test_what_the_dockerfile_copies_is_not_ignored(name):
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*", "everything else is left out"
    assert name in copied()
    assert any(fnmatch.fnmatch(name, line[1:]) for line in lines if line.startswith("!"))


def test_the_devcontainer_builds_from_the_dockerfile_and_sets_up_by_the_script():
    folder = ROOT / ".devcontainer"
    container = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    build = container["build"]
    assert (folder / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (folder / build["context"]).resolve() == ROOT
    assert any(line.endswith(f" AS {build['target']}") for line in instructions("FROM"))
    script = ROOT / container["postCreateCommand"]
    assert script.stat().st_mode & 0o100
    assert "--constraint constraints.txt" in script.read_text(encoding="utf-8")


def test_the_suite_runs_on_three_systems_and_with_posix_hidden():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["systems"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert jobs["without_posix"]["env"] == {"HARNESS_WITHOUT_POSIX": "1"}
    assert [step["run"] for step in jobs["check"]["steps"] if "run" in step] == [".ci/run"]
    for job in jobs.values():
        assert job["timeout-minutes"] <= 90
        assert "pytest" in str(job) or "scripts/test" in str(job) or ".ci/run" in str(job)
