"""peft-harness doctor: each fault is named with its remedy, and a healthy machine has none."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError

from harness.errors import ConfigFault
from harness.runtime.accelerator import Driver
from harness.runtime.hub import HubSilent
from harness.stages import doctor
from tests.support.paths import ROOT

CPU = {"__version__": "2.13.0+cpu", "cuda": None, "hip": None}
CUDA = {"__version__": "2.13.0+cu126", "cuda": "12.6", "hip": None}
A100 = Driver(12040, 2, 8, "A100", 80 << 30)


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """A machine without a fault; tests then break one thing."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    monkeypatch.setenv("WANDB_API_KEY", "b" * 40)
    for name in ("PEFT_HARNESS_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(doctor, "torch_build", lambda: CUDA)
    monkeypatch.setattr(doctor, "cuda_driver", lambda: A100)
    monkeypatch.setattr(doctor, "free_bytes", lambda kind: 16 << 30)
    monkeypatch.setattr(doctor, "ask_hub", lambda question: None)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=64 << 30))
    monkeypatch.setattr(doctor.threads, "usable_cores", lambda: 2.0)
    return tmp_path / "runs"


def faults(runs_dir):
    """What is not ok, as ``level name: found; remedy``."""
    found = [each for each in doctor.examine(runs_dir) if each.level != "ok"]
    assert all(each.remedy for each in found), "a fault without a remedy"
    return [f"{each.level} {each.name}: {each.found}; {each.remedy}" for each in found]


def test_a_healthy_machine_has_no_fault_and_nothing_is_left_on_it(healthy, capsys):
    assert faults(healthy) == []
    assert doctor.show(doctor.examine(healthy)) == 0
    shown = capsys.readouterr().out
    assert "2 x A100, 80 GiB, driver for CUDA 12.4; model.device=auto uses it" in shown
    assert "the GPU computes in it; model.dtype=auto uses it" in shown
    assert shown.endswith("\n0 bad, 0 warnings, 13 ok\n")
    assert not any(key in shown for key in ("a" * 30, "b" * 40))
    assert not list(healthy.parent.iterdir())


@pytest.mark.parametrize(
    ("driver", "begins", "remedy"),
    [
        (Driver(11040, 1, 8, "V100", 1), "bad gpu: the driver supports CUDA 11.4, torch is built", "update NVIDIA's"),
        (Driver(None), "bad gpu: the driver supports CUDA of an unknown version", "update NVIDIA's"),
        (Driver(12040), "warn gpu: the driver shows this process no GPU", "with a GPU"),
        (None, "warn gpu: no NVIDIA driver, though torch is built for CUDA", "--gpus all"),
        (Driver(12040, 1, 7, "T4", 1), "warn bfloat16: the GPU lacks it; model.dtype=auto means float16", "float32"),
    ],
)
def test_a_gpu_that_is_not_used_is_named(healthy, monkeypatch, driver, begins, remedy):
    monkeypatch.setattr(doctor, "cuda_driver", lambda: driver)
    [fault] = faults(healthy)
    assert fault.startswith(begins)
    assert remedy in fault
    assert doctor.show(doctor.examine(healthy)) == (1 if begins.startswith("bad") else 0)


def test_a_gpu_hidden_by_the_environment_names_the_variable(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "cuda_driver", lambda: Driver(12040))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [fault] = faults(healthy)
    assert fault.endswith("unset CUDA_VISIBLE_DEVICES")


def test_torch_for_the_cpu_beside_a_gpu_is_named_and_without_one_it_is_right(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "torch_build", lambda: CPU)
    [fault] = faults(healthy)
    assert "torch is built for the CPU: runs leave the GPU unused; install a build for CUDA" in fault
    monkeypatch.setattr(doctor, "cuda_driver", lambda: None)
    assert faults(healthy) == []


def test_a_missing_torch_and_an_old_python_are_bad(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "torch_build", lambda: None)
    assert any(fault.startswith("bad torch: is not installed") for fault in faults(healthy))
    [old] = doctor.python((3, 10, 2))
    assert (old.level, old.remedy) == ("bad", "install Python 3.11 or newer")


@pytest.mark.parametrize(
    ("number", "level", "text"),
    [
        ("64", "bad", "OMP_NUM_THREADS=64, but 2 cores are usable; unset it, or set OMP_NUM_THREADS=2"),
        ("3", "bad", "OMP_NUM_THREADS=3, but 2 cores are usable"),
        ("many", "warn", "OMP_NUM_THREADS=many is not a number above 0 and is ignored"),
        ("0", "warn", "OMP_NUM_THREADS=0 is not a number above 0"),
    ],
)
def test_threads_beyond_the_cores_are_named(healthy, monkeypatch, number, level, text):
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    [fault] = faults(healthy)
    assert fault.startswith(f"{level} threads: {text}")


@pytest.mark.parametrize("number", ["1", "2", "2,1"])
def test_threads_within_the_cores_are_ok(healthy, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    assert faults(healthy) == []


def test_a_quota_below_the_cores_is_shown():
    [fine] = doctor.cores(64, 1.5, 1.5)
    assert (fine.level, fine.found) == ("ok", "1.5 of 64 usable, by a quota of 1.5")
    [less] = doctor.cores(64, 0.5, 0.5)
    assert less.level == "warn"


@pytest.mark.parametrize(("free", "level"), [(50 << 20, "bad"), (500 << 20, "warn")])
def test_a_full_disk_is_named_with_its_setting(healthy, monkeypatch, free, level):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    found = faults(healthy)
    assert [fault.split(":")[0] for fault in found] == [
        f"{level} disk, runs",
        f"{level} disk, cache",
        f"{level} disk, hub",
    ]
    assert all(f"set {name} to another disk" in fault for name, fault in zip(
        ("runs_dir", "PEFT_HARNESS_CACHE", "HF_HOME"), found, strict=True))  # fmt: skip


def test_a_folder_that_cannot_be_written_is_bad(healthy, tmp_path):
    (tmp_path / "file").write_text("")
    [fault] = faults(tmp_path / "file" / "runs")
    assert fault.startswith("bad disk, runs: ")
    assert "cannot be written (Not a directory); set runs_dir to a folder on a disk" in fault


@pytest.mark.parametrize(("free", "level"), [(100 << 20, "bad"), (1 << 30, "warn")])
def test_little_memory_is_named(healthy, monkeypatch, free, level):
    monkeypatch.setattr(doctor, "free_bytes", lambda kind: free)
    [fault] = faults(healthy)
    assert fault.startswith(f"{level} memory: ")


def raising(error):
    """A hub that answers with this error."""

    def ask(question):
        raise error

    return ask


def test_a_hub_that_cannot_be_reached_says_what_still_works(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "ask_hub", raising(HubSilent("timed out after 5 s")))
    [fault] = faults(healthy)
    assert fault.startswith(
        "warn hub: https://huggingface.co cannot be reached (timed out after 5 s): only the embedded model"
    )
    assert "HF_ENDPOINT" in fault


@pytest.mark.parametrize(("status", "answers"), [(404, True), (401, True), (503, False), (407, False)])
def test_a_refusal_by_the_hub_is_an_answer_and_a_broken_one_is_not(healthy, monkeypatch, status, answers):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    monkeypatch.setattr(doctor, "ask_hub", raising(HfHubHTTPError("no", response=response)))
    assert (faults(healthy) == []) is answers


def test_offline_by_a_variable_is_named_and_nothing_is_asked(healthy, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "ask_hub", raising(AssertionError("asked")))
    [fault] = faults(healthy)
    assert fault.startswith("warn hub: offline by HF_HUB_OFFLINE: ")
    assert fault.endswith("unset HF_HUB_OFFLINE to download models")


def test_missing_logins_are_named_and_a_netrc_counts(healthy, monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub, wandb = faults(healthy)
    assert hub.startswith("warn hub login: none")
    assert "hf auth login" in hub
    assert wandb.startswith("warn W&B login: none")
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'c' * 40}\n")
    assert len(faults(healthy)) == 1


def test_a_check_that_fails_itself_is_a_finding(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "free_bytes", raising(OSError("no /proc")))
    [found] = [each for each in doctor.examine(healthy) if each.level != "ok"]
    assert (found.level, found.name, found.found) == ("warn", "memory", "cannot be checked (OSError: no /proc)")


def test_bfloat16_on_a_processor_goes_by_its_instructions():
    [fast] = doctor.bfloat16(CPU, None, {"amx_bf16"})
    [slow] = doctor.bfloat16(CPU, None, set())
    assert "the CPU computes in it (amx_bf16)" in fast.found
    assert "keep model.dtype=auto" in slow.found


def test_other_arguments_are_refused():
    assert doctor.read_arguments([]) == Path("runs")
    assert doctor.read_arguments(["runs_dir=a=b"]) == Path("a=b")
    for words in (["--help"], ["peft=lora"], ["runs_dir="], ["runs_dir"]):
        with pytest.raises(ConfigFault, match="usage: peft-harness doctor"):
            doctor.read_arguments(words)


@pytest.mark.slow
def test_the_command_needs_no_torch_and_leaves_1_for_a_fault(tmp_path):
    program = (
        "import sys; sys.argv[1:] = ['doctor', 'runs_dir=r']\n"
        "from harness.__main__ import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'wandb' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "4096", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "bad   threads" in done.stdout
    assert not list(tmp_path.iterdir())
