"""Several processes on one run: they train as one does, write once, and fail or stop together.

The processes here train on the CPU over gloo; their losses and those of one process agree within 1e-5 (relative).
"""

# Each test starts torchrun with two processes.

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.runs import command, overrides, records_of, write_rows

STRATEGIES = ["ddp", "fsdp", *(["deepspeed_zero2", "deepspeed_zero3"] if find_spec("deepspeed") else [])]
# 26 rows: two of the five steps begin a second epoch, after a short step that not all processes have rows for.
STEPS = ["trainer.max_steps=5", "trainer.warmup_share=0", "trainer.gradient_accumulation_steps=2"]

pytestmark = pytest.mark.slow

FAILING = """
import os
from harness.training.trainer import HarnessTrainer
step = HarnessTrainer.training_step
def failing(self, *args, **kwargs):
    if os.environ["RANK"] == "1" and self.state.global_step == 1:
        raise ValueError("only here")
    return step(self, *args, **kwargs)
HarnessTrainer.training_step = failing
from harness.__main__ import main
main()
"""


OTHER_CODE = """
import os
from harness.record import provenance
version = provenance.code_version
provenance.code_version = lambda: "other" if os.environ["RANK"] == "1" else version()
from harness.__main__ import main
main()
"""


def start(*words: str, cwd: Path, script: Path | None = None) -> subprocess.Popen[str]:
    """The command in two processes, under torchrun."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    settings |= {"DS_ACCELERATOR": "cpu", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, *launch, *([str(script)] if script else ["-m", "harness"]), *words],
        cwd=cwd,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*words: str, cwd: Path, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = start(*words, cwd=cwd, script=script)
    out, err = process.communicate(timeout=500)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"), train_rows=26)


@pytest.fixture(scope="module")
def trained(random_qwen2, rows, tmp_path_factory) -> tuple[Path, list[str], dict[str, Any]]:
    """Where the records of a sweep over the strategies lie, its command, and the record of one process."""
    folder = tmp_path_factory.mktemp("parallel")
    words = [*overrides(random_qwen2, rows, folder / "runs"), *STEPS, f"trainer/parallel={','.join(STRATEGIES)}", "-m"]
    done = torchrun(*words, "trainer.batch_size=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    alone = [*overrides(random_qwen2, rows, folder / "alone"), *STEPS, "trainer.batch_size=4"]
    assert command(*alone).code == 0
    [single] = records_of(folder / "alone").values()
    return folder, [*words, "trainer.batch_size=2"], single


def strategy_of(kept: dict[str, Any]) -> str:
    return kept["plan"]["trainer"]["parallel"]["strategy"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_as_one_does_on_the_same_rows_a_step(trained, strategy):
    folder, _, single = trained
    stage = int(strategy[-1]) if strategy[-1].isdigit() else None
    [shared] = [
        kept
        for kept in records_of(folder / "runs").values()
        if strategy_of(kept) == strategy.partition("_")[0]
        and kept["plan"]["trainer"]["parallel"]["deepspeed"].get("zero_optimization", {}).get("stage") == stage
    ]
    assert shared["status"] == "finished"
    for key in ("loss", "grad_norm", "learning_rate"):
        expected = [point[key] for point in single["training"]["curve"]]
        assert [point[key] for point in shared["training"]["curve"]] == pytest.approx(expected, rel=1e-5)
    expected = [point["loss"] for point in single["training"]["validation"]]
    assert [point["loss"] for point in shared["training"]["validation"]] == pytest.approx(expected, rel=1e-5)
    for when in ("before", "after"):
        assert shared["scores"][when] == pytest.approx(single["scores"][when], rel=1e-5)
    for key in ("trained_supervised_tokens", "trained_prompt_tokens"):
        assert shared["audit"][key] == single["audit"][key]
    assert shared["training"]["tokens"] == single["training"]["tokens"]
    assert shared["parameters"] == single["parameters"]
    assert shared["inferred"]["rows_per_step"] == single["inferred"]["rows_per_step"] == 8
    assert (shared["device"]["processes"], single["device"]["processes"]) == (2, 1)


def test_only_the_main_process_writes_and_the_same_command_reuses_its_records(trained):
    folder, words, _ = trained
    found = records_of(folder / "runs")
    assert len(found) == len(STRATEGIES)
    assert {kept["attempt"] for kept in found.values()} == {1}
    again = torchrun(*words, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert f"{len(STRATEGIES)} of them finished earlier, 0 to run" in again.stderr
    assert again.stdout.count("baseline (the untouched") == 1
    assert records_of(folder / "runs") == found


def test_a_fault_in_one_process_ends_the_command_and_is_on_record(random_qwen2, rows, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), *STEPS, "trainer/parallel=ddp", "-m", "seed=0,1"]
    done = torchrun(*words, cwd=tmp_path, script=script)
    assert done.returncode == 1
    [kept] = records_of(tmp_path / "runs").values()  # of the second seed there is none
    assert kept["status"] == "failed"
    assert kept["error"]["message"] == "process 1 of 2 failed: ValueError: only here"


def test_a_process_with_other_code_ends_the_command_before_the_run(random_qwen2, rows, tmp_path):
    script = tmp_path / "other.py"
    script.write_text(OTHER_CODE)
    done = torchrun(
        *overrides(random_qwen2, rows, tmp_path / "runs"), "trainer/parallel=ddp", cwd=tmp_path, script=script
    )
    assert done.returncode == 1
    assert "process 1 has code version other, the main process" in done.stderr


@pytest.mark.posix
def test_processes_that_are_stopped_together_resume_together(random_qwen2, rows, tmp_path):
    words = ["trainer/parallel=ddp", "trainer.max_steps=240", "trainer.batch_size=4", "trainer.checkpoint_steps=10"]
    words += ["lora.lora_dropout=0.1"]  # each process draws for itself, and must continue drawing where it was
    cut, whole = ([*overrides(random_qwen2, rows, tmp_path / name), *words] for name in ("cut", "whole"))
    for attempt, signum in enumerate((signal.SIGTERM, signal.SIGKILL), start=1):
        stopped_after_a_checkpoint(start(*cut, cwd=tmp_path), tmp_path / "cut", signum)
        [kept] = records_of(tmp_path / "cut").values()
        assert (kept["status"], kept["attempt"]) == ("interrupted", attempt)
    for command_ in (cut, whole):
        done = torchrun(*command_, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    [resumed], [expected] = (records_of(tmp_path / name).values() for name in ("cut", "whole"))
    assert any("resuming from the checkpoint at optimizer step" in note for note in resumed["notes"])
    for key in ("curve", "validation", "best_step", "tokens"):
        assert resumed["training"][key] == expected["training"][key], key
    assert resumed["scores"] == expected["scores"]
    weights = [
        (tmp_path / name / kept["fingerprint"] / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("cut", "whole")
    ]
    assert weights[0] == weights[1]


def stopped_after_a_checkpoint(process: subprocess.Popen, runs_dir: Path, signum: signal.Signals) -> None:
    """Stop the command once it has written a checkpoint of its own."""
    earlier, deadline = set(runs_dir.glob("*/checkpoints/step-*")), time.monotonic() + 300
    while not set(runs_dir.glob("*/checkpoints/step-*")) - earlier:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if signum is signal.SIGTERM:
        process.send_signal(signum)  # torchrun forwards it
    else:
        children = psutil.Process(process.pid).children(recursive=True)
        for each in [*children, process]:
            each.kill()
        psutil.wait_procs(children)  # their locks end with them
    process.communicate()


def test_weighted_rows_count_in_two_processes_as_in_one(random_qwen2, rows, tmp_path):
    words = [*STEPS, "data.class_weights={blue: 3, red: 0.5}"]
    shared_words = [*overrides(random_qwen2, rows, tmp_path / "runs"), *words, "trainer/parallel=ddp"]
    done = torchrun(*shared_words, "trainer.batch_size=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone = command(*overrides(random_qwen2, rows, tmp_path / "alone"), *words, "trainer.batch_size=4")
    assert alone.code == 0, alone.err
    [shared], [single] = (records_of(tmp_path / name).values() for name in ("runs", "alone"))
    for key in ("loss", "grad_norm"):
        expected = [point[key] for point in single["training"]["curve"]]
        assert [point[key] for point in shared["training"]["curve"]] == pytest.approx(expected, rel=1e-5)
