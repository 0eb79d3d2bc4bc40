"""Where a result comes from: code, libraries, machine and process. Does not import torch and never fails a run."""

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.runtime import processor
from harness.shipped import VERSION

PACKAGE = Path(__file__).resolve().parents[1]


# Packages and modules that only choose, store or show. Everything else counts as able to change a result: a module
# that is missing from this list costs a needless second run, never a stale figure.
CANNOT_CHANGE_A_RESULT = (
    *("testing/", "stages/", "sweep/", "estimate/", "report/", "trackers/", "record/"),
    *("__init__.py", "__main__.py", "cli.py", "errors.py", "shipped.py"),
    *("config/free_text.py", "config/library_errors.py", "config/messages.py", "config/names.py"),
)


# Libraries whose version can change a number: arithmetic, weights, tokens, rows and metrics.
DECISIVE_LIBRARIES = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "deepspeed", "triton", "kernels"),
    *("flash-attn", "flash-attn-3", "xformers", "numpy", "scipy", "scikit-learn", "safetensors", "gguf"),
    *("tokenizers", "sentencepiece", "tiktoken", "protobuf", "jinja2", "regex", "datasets", "pyarrow", "pandas"),
    *("evaluate", "sacrebleu", "jieba", "rouge-score", "nltk"),
)


LIBRARIES = (
    *DECISIVE_LIBRARIES,
    *("huggingface-hub", "hydra-core", "omegaconf", "wandb", "tensorboard"),
)


# Boot times drift by clock adjustments, so start times of one process may differ by a little.
START_TOLERANCE_S = 10.0


def result_sources() -> list[Path]:
    """Source files of the harness that can change a result, in a fixed order."""
    files = (path for path in PACKAGE.rglob("*.py") if "_shipped" not in path.parts)
    found = ((path.relative_to(PACKAGE).as_posix(), path) for path in files)
    return sorted(path for name, path in found if not name.startswith(CANNOT_CHANGE_A_RESULT))


@cache
def code_version() -> str:
    """16 hex digits over the sources that can change a result and the versions of the decisive libraries.

    Equal versions promise that the same code would execute the same plan. Any edit counts, even of a comment:
    telling edits apart is not worth a stale figure. Cached: a process runs what it loaded.
    """
    digest = hashlib.sha256()
    for path in result_sources():
        # Line ends depend on the checkout, not on the code.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}:{len(content)}\n".encode())
        digest.update(content)
    # Python's own tables decide which characters are letters, spaces or digits.
    digest.update(f"python=={platform.python_version().rpartition('.')[0]}\n".encode())
    for name in DECISIVE_LIBRARIES:
        digest.update(f"{name}=={library_version(name)}\n".encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of Python, of the harness and of the installed libraries; those that are not installed are left out."""
    found = {name: library_version(name) for name in LIBRARIES}
    named = {"python": platform.python_version(), "harness": VERSION}
    return named | {name: version for name, version in found.items() if version is not None}


@cache
def library_version(name: str) -> str | None:
    """The installed version of a library, or None if it is not installed. Cached: a process runs what it loaded."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class GitState(NamedTuple):
    """Commit of the source tree, and whether anything differs from it; both None outside git."""

    commit: str | None
    dirty: bool | None


@cache
def git_state() -> GitState:
    """The state of the source tree when first asked.

    Dirty means a changed, added or untracked file in the package or beside it in ``conf`` or ``data``; a
    stray file elsewhere cannot change a run.
    """
    # An installed copy may be inside somebody else's repository: then its commit says nothing about us.
    if _git("ls-files", "--error-unmatch", "--", str(PACKAGE / "__init__.py")) is None:
        return GitState(None, None)
    commit = _git("rev-parse", "HEAD")
    status = _git(
        "status",
        "--porcelain",
        "--",
        *(str(PACKAGE.parent / name) for name in (PACKAGE.name, "conf", "data")),
    )
    return GitState((commit or "").strip() or None, None if status is None else bool(status.strip()))


def _git(*arguments: str) -> str | None:
    """Output of one git command in the source tree, or None if it fails."""
    # A hook's GIT_DIR or GIT_INDEX_FILE would point git at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")  # whatever the encoding of this console is


def device_info(device: str | None = None) -> dict[str, str | int | None]:
    """The machine, and the accelerator that ``device`` ("cpu", "cuda:0", ...) names.

    Without ``device`` the type is None: what the run will use is not known yet. Torch is asked only if it is
    already imported. Sizes are bytes.
    """
    import psutil

    info: dict[str, str | int | None] = {
        "type": device.partition(":")[0] if device else None,
        "name": processor.name(),
        "count": 1,
        "threads": None,
        "cpu_cores": os.cpu_count(),
        "machine_memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
    }
    torch = sys.modules.get("torch")
    if torch is None:
        return info
    info["threads"] = torch.get_num_threads()
    if info["type"] == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.device(device))
        info |= {"name": properties.name, "count": torch.cuda.device_count()}
        info |= {"device_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return info


def owner() -> dict[str, str | int | float]:
    """This process as the owner of a run; its start time tells it from a later process with the same id."""
    import psutil

    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": psutil.Process().create_time()}


def alive(owner: dict) -> bool | None:
    """Whether the process still runs; None if it is on another host and cannot be checked."""
    import psutil

    if owner["host"] != socket.gethostname():
        return None
    try:
        process = psutil.Process(owner["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        started = owner.get("pid_started")
        return started is None or abs(process.create_time() - started) < START_TOLERANCE_S
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
