"""Several processes on one run: what they agree on, what they train, and what cannot work.

The processes here train on the CPU over gloo; the losses of theirs and of one process agree within 1e-5 (relative).
"""

import copy
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
import torch

from harness.data import collate as data_collate
from harness.data.sampler import LengthSampler
from harness.errors import ConfigFault, ModelFault
from harness.models import base as model_base
from harness.models.device import pick_device
from harness.models.skeleton import skeleton
from harness.sweep.launchers.base import refuse_under_torchrun
from harness.training import sharding
from harness.training.train import _arguments
from tests.support.paths import ROOT
from tests.support.runs import command, loaded, overrides, plan_of, prepared, records_of, write_rows

STRATEGIES = ["ddp", "fsdp", *(["deepspeed_zero2", "deepspeed_zero3"] if find_spec("deepspeed") else [])]
# 26 rows: two of the five steps begin a second epoch, after a short step that not all processes have rows for.
STEPS = ["trainer.max_steps=5", "trainer.warmup_share=0", "trainer.gradient_accumulation_steps=2"]

FAILING = """
import os
from harness import loop
step = loop.Loop.training_step
def failing(self, *args, **kwargs):
    if os.environ["RANK"] == "1" and self.state.global_step == 1:
        raise ValueError("only here")
    return step(self, *args, **kwargs)
loop.Loop.training_step = failing
from harness.__main__ import main
main()
"""


def start(*words: str, cwd: Path, script: Path | None = None) -> subprocess.Popen[str]:
    """The command in two processes, and torchrun that watches over them."""
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


def test_the_first_process_alone_writes_and_the_same_command_uses_it_again(trained):
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


def test_processes_that_are_stopped_together_go_on_together(random_qwen2, rows, tmp_path):
    words = ["trainer/parallel=ddp", "trainer.max_steps=240", "trainer.batch_size=4", "trainer.checkpoint_steps=10"]
    words += ["lora.lora_dropout=0.1"]  # each process draws for itself, and must go on drawing where it was
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
        process.send_signal(signum)  # torchrun hands it on
    else:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
    process.communicate()


# --- what cannot work -----------------------------------------------------------------------------------


def test_launchers_that_start_processes_are_refused_under_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigFault, match="hydra/launcher starts processes of its own, and WORLD_SIZE=2"):
        refuse_under_torchrun("hydra/launcher")


# --- rows and batches -----------------------------------------------------------------------------------


def test_rows_of_a_step_are_the_same_however_many_processes_share_it():
    lengths = [(7 * number) % 13 + 1 for number in range(26)]
    alone = list(LengthSampler(lengths, 8, 0))
    shared = list(LengthSampler(lengths, 8, 0, together=4))
    assert shared == [*alone, -1, -1]  # a multiple of four: each of two processes takes two at once
    assert len(LengthSampler(lengths, 8, 0, together=4)) == 28


def test_a_batch_without_rows_keeps_pace_and_adds_nothing(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path)
    examples = made.rows.splits["train"]
    collate = sharding.in_step(lambda batch: data_collate.collate(batch, 0, "right"), examples[0])
    part = collate([examples[1], None])
    assert part["input_ids"].tolist() == data_collate.collate([examples[1]], 0, "right")["input_ids"].tolist()
    nothing = collate([None, None])
    assert (nothing["labels"] == -100).all()
    loss = made.model(**nothing, num_items_in_batch=torch.tensor(5)).loss
    loss.backward()
    assert loss.item() == 0
    gradients = [weight.grad for weight in made.model.parameters() if weight.requires_grad]
    assert all(gradient is None or not gradient.any() for gradient in gradients)


# --- devices --------------------------------------------------------------------------------------------


def test_training_stays_on_the_gpu_that_the_plan_names(random_qwen2, rows, tmp_path):
    made, _ = plan_of(*overrides(random_qwen2, rows, tmp_path))
    with mock.patch("torch.cuda.set_device") as current:
        arguments = _arguments(made, torch.device("cuda:1"), torch.float32, 2, tmp_path)
    assert arguments.device == torch.device("cuda:1")  # left alone, Trainer takes cuda:0
    current.assert_called_once_with(torch.device("cuda:1"))


def test_each_process_takes_a_gpu_of_its_own(random_qwen2, monkeypatch):
    settings = plan_of(f"model.path={random_qwen2}")[0].model
    with mock.patch("torch.cuda.is_available", return_value=True):
        assert pick_device(settings) == torch.device("cuda:0")
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert pick_device(settings) == torch.device("cuda:3")


def test_weights_that_device_map_leaves_outside_of_the_gpus_are_refused(random_qwen2):
    settings = plan_of(f"model.path={random_qwen2}", "model.device_map=auto")[0].model
    net = skeleton(loaded(random_qwen2).model.config)  # offloaded weights are on meta, too
    with pytest.raises(ModelFault, match=r"model.device_map=auto: \d+ weights do not fit the GPUs"):
        model_base._refuse_offloaded(net, settings)


def test_a_model_spread_by_hooks_trains_as_a_whole_one_does(random_qwen2, rows, tmp_path):
    from accelerate import dispatch_model

    whole = prepared(random_qwen2, rows, tmp_path)
    base = copy.copy(loaded(random_qwen2))
    places = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu")
    places |= {f"model.layers.{layer}": "cpu" for layer in (0, 1)}
    base.model = dispatch_model(copy.deepcopy(base.model), places, main_device="cpu", force_hooks=True)
    spread = prepared(random_qwen2, rows, tmp_path, base=base)
    layer = spread.model.get_base_model().model.layers[1]
    assert layer.forward.args[0] is layer  # the hook calls this fork's layer, not the base's
    curves = [[point["loss"] for point in made.train(tmp_path).curve] for made in (whole, spread)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)


def test_parked_weights_come_back_bit_for_bit_and_still_share_storage(random_qwen2):
    base = loaded(random_qwen2)
    fork = model_base.fork(base, private_weights=False)
    before = model_base.fingerprint_weights(base.model)
    parameters = [*base.model.parameters(), *fork.parameters()]
    sharding._move(parameters, [torch.device("cpu")] * len(parameters))
    for mine, its in zip(base.model.parameters(), fork.parameters(), strict=True):
        assert mine.data_ptr() == its.data_ptr()
    assert model_base.fingerprint_weights(base.model) == model_base.fingerprint_weights(fork) == before
