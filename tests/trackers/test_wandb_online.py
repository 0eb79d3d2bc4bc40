"""W&B online, against a local stand-in of its server: what the real client sends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.sweeps import SMALL, needs_tiny
from tests.support.wandb_server import wandb_server

RUN = """
import sys
from pathlib import Path
from tests.support.trackers import play, start, tracker
folder = Path(sys.argv[1])
(folder / "adapter").mkdir()
(folder / "adapter" / "weights.bin").write_bytes(b"12")
(folder / "record.json").write_text("{}")
run = start(tracker("wandb", folder, mode="online", entity="team", job_type="grid", artifact=True))
print(run.url)
run.record(folder / "record.json")
run.artifact("adapter-ffff", folder / "adapter", {"method": "lora"})
play(run, ok=False)
"""


def python(server, home, *words, seconds=120):
    """A process that knows this server only."""
    environment = os.environ | server.environment() | {"HOME": str(home), "WANDB_DIR": str(home)}
    # The agent starts the python of the shell.
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
    )
    assert server.unknown == []
    return done


def sent(server, run):
    """The last summary of a run, and its exit code."""
    files = [part["files"] for part in server.streams[run] if part.get("files")]
    summaries = [json.loads(file["content"][-1]) for each in files if (file := each.get("wandb-summary.json"))]
    codes = [part["exitcode"] for part in server.streams[run] if part.get("complete")]
    return summaries[-1], codes[-1]


@pytest.mark.slow
def test_run_is_sent_with_its_files_adapter_figures_and_state(tmp_path):
    with wandb_server() as server:
        done = python(server, tmp_path, "-c", RUN, str(tmp_path))
    assert done.returncode == 0, done.stderr
    ((identity, run),) = server.runs.items()
    assert done.stdout.strip() == f"{server.url}/team/toy/runs/{identity}"
    assert (run["groupName"], run["jobType"], run["entity"]) == ("sweep-1", "grid", "team")
    assert f"{identity}/peft_harness_record.json" in server.files
    assert [each["artifactTypeName"] for each in server.artifacts if "adapter" in each["artifactCollectionName"]]
    summary, code = sent(server, identity)
    assert (summary["after/exact_match"], code) == (0.625, 1)


@pytest.mark.slow
@needs_tiny
def test_agent_of_a_sweep_drives_the_harness_and_a_reused_run_answers_it_too(tmp_path):
    definition = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    definition["command"] += [*SMALL, f"runs_dir={tmp_path / 'runs'}", f"tracker.dir={tmp_path}", "trainer.threads=1"]
    chosen = {"peft": {"value": "lora"}, "lora.r": {"value": 4}, "trainer.learning_rate": {"value": 0.01}}
    with wandb_server() as server:
        server.sweep_config = yaml.safe_dump(definition)
        server.sweep_runs = [chosen, chosen]  # a random search may ask for one plan twice
        done = python(server, tmp_path, "-m", "wandb", "agent", "team/toy/sweep1", seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 1, done.stdout + done.stderr
    runs = sorted(server.runs)
    assert [name[:5] for name in runs] == ["swept", "swept"]
    assert {server.runs[name]["sweep"] for name in runs} == {"sweep1"}
    first, second = (sent(server, name) for name in runs)
    assert first[0]["validation/loss"] == second[0]["validation/loss"] > 0  # what the sweep minimizes
    assert (first[1], second[1]) == (0, 0)
