"""The harness installed from a built wheel, in an environment that is fresh but for the libraries of this one."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.support.paths import ROOT


def installed_wheel(folder: Path) -> Path:
    """Build the wheel and install it below ``folder``; nothing is downloaded. Returns the environment's bin folder."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    venv.create(folder / "venv", with_pip=False)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    [site] = (folder / "venv").glob("[Ll]ib/**/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    [wheel] = (folder / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return scripts


def run_installed(here: Path, *words: str, code: int = 0) -> str:
    """Run a command in a folder as a user of the wheel would, without this checkout; returns what it prints."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PEFT_HARNESS_PROJECT")}
    kept |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    done = subprocess.run(list(words), cwd=here, capture_output=True, text=True, env=kept, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
