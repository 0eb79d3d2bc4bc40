"""The command as a user runs it, in its own process; and every published experiment for a step or two."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from omegaconf import OmegaConf

from harness.adapters import save_load
from harness.models.base import fork
from harness.pipeline import tune
from harness.training import train
from tests.support.paths import ROOT
from tests.support.runs import command, loaded, overrides, plan_of, records_of, write_rows

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


def start(*words: str, cwd: Path, code: str | None = None) -> subprocess.Popen:
    run = ["-c", code] if code else ["-m", "harness"]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *run, *words],
        cwd=cwd,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_run_reads_interrupted_and_the_same_command_finishes_it(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "peft=prompt_tuning", "trainer.epochs=1"]
    endless = [*words, "trainer.max_steps=100000"]
    process = start(*endless, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while not any(re.search(r'"step": [1-9]', file.read_text()) for file in tmp_path.glob("runs/*/progress.json")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.communicate()
    [kept] = records_of(tmp_path / "runs").values()
    assert kept["status"] == "interrupted"
    assert kept["error"]["hint"] == "killed, or out of memory; run the same command again"

    # The same plan with two steps: its hundred thousand only leave time for the kill.
    with (
        mock.patch.object(tune, "optimizer_steps", return_value=2),
        mock.patch.object(train, "optimizer_steps", return_value=2),
    ):
        done = command(*endless)
    assert done.code == 0, done.err
    [after] = records_of(tmp_path / "runs").values()
    assert (after["status"], after["attempt"], after["fingerprint"]) == ("finished", 2, kept["fingerprint"])
    assert any("replaces attempt 1 (interrupted" in note for note in after["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, getattr(signal, "SIGKILL", 9)])
@pytest.mark.posix
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(random_qwen2, rows, tmp_path, signum):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "trainer.max_steps=60", "trainer.checkpoint_steps=20"]
    process = start(*words, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signum)
    said = process.communicate()[1]
    assert "gemm_4bit" not in said  # what bitsandbytes misses, which PEFT imports for an unquantized base too
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}[signum], said
    [kept] = records_of(tmp_path / "runs").values()
    assert kept["status"] == "interrupted"
    done = command(*words)
    assert done.code == 0, done.err
    whole = command(*words, f"runs_dir={tmp_path / 'whole'}")
    assert whole.code == 0, whole.err
    [resumed], [expected] = (records_of(tmp_path / name).values() for name in ("runs", "whole"))
    assert any("resuming from the checkpoint at optimizer step" in note for note in resumed["notes"])
    for key in ("scores", "audit", "parameters", "adapter"):
        assert resumed[key] == expected[key], key
    assert resumed["training"]["curve"] == expected["training"]["curve"]
    names = [
        tmp_path / name / kept["fingerprint"] / "adapter" / "adapter_model.safetensors" for name in ("runs", "whole")
    ]
    assert names[0].read_bytes() == names[1].read_bytes()
    assert not (tmp_path / "runs" / kept["fingerprint"] / "checkpoints").exists()


QUIET = """
import runpy, sys
sys.argv = ["harness", *sys.argv[1:]]
try:
    runpy.run_module("harness", run_name="__main__")
except SystemExit as stop:
    print("exit", stop.code)
print("torch", "torch" in sys.modules)
"""


PLAIN = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({base!r}, dtype=torch.float32)
model = PeftModel.from_pretrained(base, {adapter!r}).eval()
print("sum", float(model(input_ids=torch.tensor([[5, 6, 7]])).logits.double().sum()))
"""


@pytest.mark.slow
def test_the_console_has_no_library_noise_and_a_finished_sweep_is_shown_without_torch(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "lora.r=2", "trainer.max_steps=2"]
    words += ["peft=lora,prompt_tuning,full", "lora.init_lora_weights=pissa"]
    first = start("-m", *words, cwd=tmp_path)
    out, err = first.communicate(timeout=500)
    assert first.returncode == 0, err
    known = ("3 cells", "[", "full ", "lora ", "prompt_tuning ", "  ")
    strange = [line for line in err.splitlines() if not line.startswith(known) and "answers will be cut" not in line]
    assert strange == []
    assert "Warning" not in out + err
    assert not (tmp_path / "multirun.yaml").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

    again = start("-m", *words, cwd=tmp_path, code=QUIET)
    out, err = again.communicate(timeout=500)
    assert "torch False" in out
    assert "3 of them finished earlier" in err

    lora = next(kept for kept in records_of(tmp_path / "runs").values() if kept["method"] == "lora")
    adapter = tmp_path / "runs" / lora["fingerprint"] / "adapter"
    fresh = start(cwd=tmp_path, code=PLAIN.format(base=str(random_qwen2), adapter=str(adapter)))
    out, err = fresh.communicate(timeout=300)
    assert out.startswith("sum "), err
    made, _ = plan_of(*words[:-2], "peft=lora", "lora.init_lora_weights=pissa")
    assert made.fingerprint == lora["fingerprint"]
    here = save_load.load_adapter(fork(loaded(random_qwen2), private_weights=False), adapter, made)
    with torch.no_grad():
        expected = here(input_ids=torch.tensor([[5, 6, 7]])).logits.double().sum()
    assert float(out.removeprefix("sum ")) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs(name, tmp_path):
    words = [f"runs_dir={tmp_path / 'runs'}", "scale=smoke", "seed=0", "trainer.threads=1"]
    # AdaLoRA cannot prune within one step, and says so.
    words += [f"trainer.max_steps={2 if name == 'every_method' else 1}"]
    words += ["scoring.metrics=[names_target]", "scoring.generation.max_new_tokens=2"]
    done = command("-m", f"experiment={name}", *words)
    assert done.code == 0, done.err
    kept = records_of(tmp_path / "runs")
    assert kept
    assert {record["status"] for record in kept.values()} == {"finished"}
    [file] = (tmp_path / "runs" / "sweeps").glob("*/report.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    rules = OmegaConf.load(ROOT / "conf" / "experiment" / f"{name}.yaml").get("paper", {}).get("expect", [])
    # One seed decides nothing, but each rule finds the arms, settings and scores that it names.
    missing = [each["measured"] for shape in report["shapes"] for each in shape["rules"]]
    assert len(missing) == len(rules)
    assert all("one seed" in each or "rates of" in each or "edge of the grid" in each for each in missing), missing
