"""``peft-harness doctor``: what this machine has, and what to set, one line each. Imports no torch.

Each check is a function of what it is told and of the environment, and returns findings. ``ok`` needs nothing, ``warn``
means slower or less than this machine could do, ``bad`` means that runs fail or leave the GPU unused.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, HarnessError, first_line
from harness.record.redact import redactor
from harness.runtime import processor, threads
from harness.runtime.accelerator import BF16_CAPABILITY, Driver, cuda_driver, torch_build
from harness.runtime.caches import cache_folder
from harness.runtime.hub import HubSilent, ask_hub
from harness.runtime.memory import free_bytes
from harness.runtime.terminal import counted, printable

USAGE = "usage: peft-harness doctor [runs_dir=FOLDER] (also: python -m harness doctor)"

GIB = 1 << 30
LOW_DISK, NO_DISK = GIB, 100 << 20  # free bytes: a few runs of a small model; one run
LOW_MEMORY, NO_MEMORY = 2 * GIB, GIB // 2  # torch alone takes 0.3 GiB, a run of the embedded model about 1 GiB

REPORT = "the other lines are still valid"

ASKED = "openai-community/gpt2"  # a model that the hub has had for years


@dataclass(frozen=True)
class Finding:
    """One line."""

    level: str  # ok, warn, bad
    name: str
    found: str
    remedy: str = ""  # nothing to do: empty


def read_arguments(arguments: list[str]) -> Path:
    """The folder of runs that the command names; ``runs`` by default.

    Raises:
        ConfigFault: there are other arguments.
    """
    runs_dir = "runs"
    for word in arguments:
        key, equals, value = word.partition("=")
        if key != "runs_dir" or not equals or not value:
            raise ConfigFault(f"doctor: {word} is not an argument of this command; {USAGE}")
        runs_dir = value
    return Path(runs_dir).expanduser()


def examine(runs_dir: Path) -> Iterator[Finding]:
    """Every finding on this machine, one after the other; a check that fails itself is a finding."""
    built, driver = torch_build(), _driver()
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", lambda: python(sys.version_info[:3])),
        ("torch", lambda: torch(built)),
        ("gpu", lambda: gpu(built, driver, os.environ)),
        ("bfloat16", lambda: bfloat16(built, driver, processor.flags())),
        ("cores", lambda: cores(os.cpu_count() or 1, threads.usable_cores(), threads.cgroup_quota())),
        ("threads", lambda: thread_count(threads.usable_cores(), os.environ)),
        ("memory", lambda: memory(free_bytes("cpu"))),
        ("disk", lambda: disk("runs", "runs_dir", runs_dir)),
        ("disk", lambda: disk("cache", "PEFT_HARNESS_CACHE", cache_folder())),
        ("disk", lambda: disk("hub", "HF_HOME", hub_cache(os.environ))),
        ("hub", lambda: hub(os.environ)),
        ("hub login", hub_login),
        ("W&B login", lambda: wandb_login(os.environ)),
    ]
    for name, check in checks:
        try:
            yield from check()
        except (OSError, ValueError, AttributeError, ImportError, HarnessError) as error:
            yield Finding("warn", name, f"cannot be checked ({first_line(error)})", REPORT)


def show(findings: Iterable[Finding]) -> int:
    """Print the findings as they come, and a summary; return 1 if something is bad, else 0."""
    redact = redactor()
    levels = []
    for each in findings:
        levels.append(each.level)
        text = f"{each.found}; {each.remedy}" if each.remedy else each.found
        print(f"{each.level:<5} {each.name:<11} {printable(redact(text), one_line=True)}", flush=True)
    bad, warned = levels.count("bad"), levels.count("warn")
    print(f"{bad} bad, {counted(warned, 'warning')}, {levels.count('ok')} ok")
    return 1 if bad else 0


def python(version: tuple[int, ...]) -> Iterator[Finding]:
    """The interpreter."""
    shown = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version < (3, 11):
        yield Finding("bad", "python", shown, "install Python 3.11 or newer")
    else:
        yield Finding("ok", "python", shown)


def torch(built: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What torch was built for."""
    if built is None:
        yield Finding("bad", "torch", "is not installed, or broken", "run scripts/setup, or pip install torch")
        return
    kind = f"ROCm {built['hip']}" if built.get("hip") else f"CUDA {built['cuda']}" if built.get("cuda") else "the CPU"
    yield Finding("ok", "torch", f"{str(built.get('__version__')).partition('+')[0]}, built for {kind}")


def gpu(built: Mapping[str, Any] | None, driver: Driver | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether runs use a GPU, and if not, why."""
    built = built or {}
    cuda = built.get("cuda")
    if built.get("hip"):
        yield Finding("ok", "gpu", "torch is built for ROCm; whether it sees a GPU is known once a run starts")
    elif driver is None:
        yield _without_driver(cuda)
    elif not cuda:
        yield Finding(
            "warn",
            "gpu",
            f"{_shown(driver)}, but torch is built for the CPU: runs leave the GPU unused",
            "install a build for CUDA from https://pytorch.org/get-started/locally",
        )
    elif driver.cuda is None or driver.cuda // 1000 < int(str(cuda).partition(".")[0]):
        yield Finding(
            "bad",
            "gpu",
            f"the driver supports CUDA {_release(driver)}, torch is built for CUDA {cuda}: runs leave the GPU unused",
            "update NVIDIA's driver, or install torch for the driver's CUDA (https://pytorch.org/get-started/locally)",
        )
    elif not driver.gpus:
        hidden = environment.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden is not None else ""
        remedy = "unset CUDA_VISIBLE_DEVICES" if hidden is not None else "start the container or job with a GPU"
        yield Finding("warn", "gpu", f"the driver shows this process no GPU{why}: runs use the CPU", remedy)
    else:
        yield Finding("ok", "gpu", f"{_shown(driver)}; model.device=auto uses it")


def _without_driver(cuda: Any) -> Finding:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Finding("ok", "gpu", "Apple's; auto means the CPU, model.device=mps uses the GPU")
    if cuda:
        remedy = "if there is a GPU, install NVIDIA's driver, or start the container with --gpus all"
        return Finding("warn", "gpu", "no NVIDIA driver, though torch is built for CUDA: runs use the CPU", remedy)
    return Finding("ok", "gpu", "none: runs use the CPU, which suffices for the embedded model")


def _release(driver: Driver) -> str:
    return "of an unknown version" if driver.cuda is None else f"{driver.cuda // 1000}.{driver.cuda % 1000 // 10}"


def _shown(driver: Driver) -> str:
    if not driver.gpus:
        return f"a driver for CUDA {_release(driver)}"
    return f"{driver.gpus} x {driver.name or 'GPU'}, {driver.memory / GIB:.0f} GiB, driver for CUDA {_release(driver)}"


def bfloat16(built: Mapping[str, Any] | None, driver: Driver | None, flags: set[str]) -> Iterator[Finding]:
    """Where bfloat16 is fast, and what model.dtype=auto means."""
    cuda = (built or {}).get("cuda")
    usable = driver and driver.gpus and cuda and (driver.cuda or 0) // 1000 >= int(str(cuda).partition(".")[0])
    if driver and usable and driver.capability is not None:
        if driver.capability >= BF16_CAPABILITY:
            yield Finding("ok", "bfloat16", "the GPU computes in it; model.dtype=auto uses it")
        else:
            remedy = "if the loss overflows, set model.dtype=float32"
            yield Finding("warn", "bfloat16", "the GPU lacks it; model.dtype=auto means float16", remedy)
        return
    fast = sorted(flags & {"amx_bf16", "avx512_bf16", "bf16"})
    if fast:
        shown = f"the CPU computes in it ({', '.join(fast)}); model.dtype=auto means float32, bfloat16 must be set"
    else:
        shown = "the CPU has no instructions for it; keep model.dtype=auto, which means float32"
    yield Finding("ok", "bfloat16", shown)


def cores(present: int, usable: float, quota: float | None) -> Iterator[Finding]:
    """Cores of the machine, and what of them this process may use."""
    limit = f", by a quota of {quota:g}" if quota is not None and quota < present else ""
    shown = f"{usable:g} of {present} usable{limit}"
    if usable < 1:
        yield Finding("warn", "cores", shown, "give the container or job at least one core")
    else:
        yield Finding("ok", "cores", shown)


def thread_count(usable: float, environment: Mapping[str, str]) -> Iterator[Finding]:
    """The threads that a run would compute with."""
    text = environment.get(threads.GIVEN, "")
    named = threads.given(environment)
    most = max(1, int(usable))
    if text and named is None:
        remedy = f"set a number, such as {threads.GIVEN}={most}, or unset it"
        yield Finding("warn", "threads", f"{threads.GIVEN}={text} is not a number above 0 and is ignored", remedy)
    elif named and named.count > most:
        remedy = f"unset it, or set {threads.GIVEN}={most}; threads that share a core slow each other down"
        yield Finding("bad", "threads", f"{threads.GIVEN}={named.count}, but {usable:g} cores are usable", remedy)
    elif named:
        yield Finding("ok", "threads", f"{named.count}, by {threads.GIVEN}")
    else:
        yield Finding("ok", "threads", f"at most {most}: one for each core that is free when a command starts")


def memory(free: int) -> Iterator[Finding]:
    """Memory that a run can still allocate, within the limit of the control group."""
    shown = f"{free / GIB:.1f} GiB free"
    if free < NO_MEMORY:
        remedy = "end other programs, or raise the limit of the container"
        yield Finding("bad", "memory", f"{shown}, too little for any run", remedy)
    elif free < LOW_MEMORY:
        remedy = "see what a run needs with stage=plan plan.device=here"
        yield Finding("warn", "memory", f"{shown}, enough for the embedded model alone", remedy)
    else:
        yield Finding("ok", "memory", shown)


def disk(what: str, setting: str, folder: Path) -> Iterator[Finding]:
    """Whether the folder can be written to, and what is free there. Nothing is created but for a moment."""
    name = f"disk, {what}"
    parent = folder.absolute()
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent) as probe:
            probe.write(b"\0" * 4096)
        free = shutil.disk_usage(parent).free
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror or first_line(error)})"
        yield Finding("bad", name, why, f"set {setting} to a folder on a disk with room that you may write to")
        return
    shown = f"{free / GIB:.1f} GiB free at {folder}"
    if free < NO_DISK:
        yield Finding("bad", name, f"{shown}, too little for a run", f"free some, or set {setting} to another disk")
    elif free < LOW_DISK:
        yield Finding("warn", name, shown, f"free some, or set {setting} to another disk, before long sweeps")
    else:
        yield Finding("ok", name, shown)


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps downloads."""
    base = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(environment.get("HF_HUB_CACHE") or Path(base) / "hub").expanduser()


def hub(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether models and data can be downloaded."""
    endpoint = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    meaning = "only the embedded model, local folders and earlier downloads work"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            yield Finding("warn", "hub", f"offline by {name}: {meaning}", f"unset {name} to download models")
            return
    from huggingface_hub.errors import HfHubHTTPError

    try:
        ask_hub(lambda api, timeout: api.model_info(ASKED, timeout=timeout))
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status >= 500 or status == 407:
            remedy = "try again later, or set HF_ENDPOINT to a mirror"
            yield Finding("warn", "hub", f"{endpoint} answers with an error ({status}): {meaning}", remedy)
            return
    except HubSilent as silent:
        remedy = "check the network and its proxy (HTTPS_PROXY), set HF_ENDPOINT to a mirror, or HF_HUB_OFFLINE=1"
        yield Finding("warn", "hub", f"{endpoint} cannot be reached ({silent}): {meaning}", remedy)
        return
    yield Finding("ok", "hub", f"{endpoint} answers")


def hub_login() -> Iterator[Finding]:
    """Whether there is a token of the hub; it is not shown, and not sent."""
    from huggingface_hub import get_token

    if get_token():
        yield Finding("ok", "hub login", "a token is set")
    else:
        found = "none; only gated models (llama3_2_1b, gemma3_270m) and stage=push need it"
        yield Finding("warn", "hub login", found, "for those, run `hf auth login` or set HF_TOKEN")


def wandb_login(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether W&B would find a key, looked up as its client does; the client itself takes seconds to import."""
    if environment.get("WANDB_API_KEY") or _key_in_netrc(environment):
        yield Finding("ok", "W&B login", "a key is set")
    else:
        remedy = "for that, run `wandb login` or set WANDB_API_KEY"
        yield Finding("warn", "W&B login", "none; only tracker=wandb tracker.mode=online needs it", remedy)


def _key_in_netrc(environment: Mapping[str, str]) -> bool:
    import netrc
    from urllib.parse import urlsplit

    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    named = environment.get("NETRC")
    for file in [Path(named).expanduser()] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(file).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _driver() -> Driver | None:
    try:
        return cuda_driver()
    except AttributeError:  # a library of that name which is no driver
        return Driver(None)
