"""Sweeps through SLURM: batches, resumption, jobs that vanish.

The real sweep needs a SLURM that answers: ``scripts/slurm_local up`` and ``eval "$(scripts/slurm_local env)"``.
"""

import pickle
import subprocess
import time

import pytest

from harness.errors import ConfigFault
from harness.plan.read import read_config
from harness.sweep.launchers import slurm, slurm_queue, worker
from harness.sweep.outcome import Status
from tests.support.configs import compose
from tests.support.sweeps import SMALL, SweepCommand, assert_same_results, finished, needs_tiny, worker_job

QUEUE = {
    "partition": "gpu", "time_min": 60, "max_timeouts": 3, "signal_delay_s": 60, "cpus": 2, "gpus": 1, "mem_gb": 1.5,
    "max_parallel": 4, "plans_per_job": 2, "setup": ["module load cuda"], "more": {"account": "lab"}, "poll_s": 0.1,
}  # fmt: skip


@pytest.mark.posix
def test_job_that_is_cut_off_resumes_with_the_plans_it_has_left(monkeypatch):
    pytest.importorskip("submitit")
    ran = []
    monkeypatch.setattr(worker, "run_job", lambda each: ran.append(each.fingerprint) or finished(each.fingerprint))
    again = slurm.ArrayJob([worker_job("a"), worker_job("b")], [finished("a")]).checkpoint().function
    assert [each["fingerprint"] for each in again()] == ["a", "b"]
    assert ran == ["b"]


@pytest.mark.posix
def test_jobs_are_batched_by_base_model():
    jobs = [worker_job("a1", "a"), worker_job("a2", "a"), worker_job("a3", "a"), worker_job("b1", "b")]
    assert [[each.fingerprint for each in batch] for batch in slurm.batch_by_model(jobs, 2)] == [
        ["a1", "a2"],
        ["a3"],
        ["b1"],
    ]


@pytest.mark.posix
def test_settings_become_options_that_sbatch_knows(tmp_path):
    core = pytest.importorskip("submitit.slurm.slurm")
    text = core._make_sbatch_string("run", tmp_path, map_count=3, **slurm.Slurm(**QUEUE).sbatch_parameters())
    lines = text.splitlines()
    for option in ("partition=gpu", "time=60", "signal=USR2@60", "requeue", "account=lab", "mem=1536MB", "array=0-2%3"):
        assert f"#SBATCH --{option}" in lines, option
    assert {"module load cuda", "export OMP_NUM_THREADS=2"} <= set(lines)


@pytest.mark.posix
def test_results_of_jobs_are_read_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "run_job", lambda each: finished(each.fingerprint))
    jobs = [worker_job("a"), worker_job("b")]
    for name, result in (
        ("7_0", ("success", slurm.ArrayJob(jobs)())),
        ("7_1", ("error", "Traceback\nOSError: gone\n")),
    ):
        (tmp_path / f"{name}_0_result.pkl").write_bytes(pickle.dumps(result))
    monkeypatch.setattr(slurm_queue, "states", dict)
    outcomes = list(slurm.Slurm(**QUEUE).outcomes_of({tmp_path / "7_0": jobs, tmp_path / "7_1": [worker_job("c")]}))
    assert outcomes[:2] == [finished("a"), finished("b")]
    assert (outcomes[2].status, outcomes[2].message) == (Status.died, "its SLURM job 7_1 failed: OSError: gone")


@pytest.mark.posix
def test_job_that_leaves_the_queue_without_a_result_has_died(tmp_path, monkeypatch):
    looks = iter([{"7_0": "RUNNING"}, None, {"7_0": "PENDING"}, *[{}] * slurm.LOOKS])
    monkeypatch.setattr(slurm_queue, "states", lambda: next(looks))
    monkeypatch.setattr(slurm_queue, "reason_of_end", lambda job_id: "TIMEOUT, reason TimeLimit")
    [outcome] = slurm.Slurm(**QUEUE).outcomes_of({tmp_path / "7_0": [worker_job("a")]})
    assert (outcome.fingerprint, outcome.status) == ("a", Status.died)
    assert "7_0 ended without a result (TIMEOUT" in outcome.message


@pytest.mark.posix
def test_slurm_that_is_not_there_is_a_readable_fault(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigFault, match="scripts/slurm_local"):
        list(slurm.Slurm(**QUEUE).run([worker_job("a")], tmp_path))


def slurm_answers() -> bool:
    try:
        done = subprocess.run(["sinfo", "-h", "-p", "urgent", "-o", "%T"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() in ("idle", "mixed", "allocated", "completing")


needs_slurm = pytest.mark.skipif(
    not slurm_answers(), reason="no SLURM with a partition `urgent`: scripts/slurm_local up brings one up, as root"
)


@pytest.mark.slow
@needs_tiny
@needs_slurm
@pytest.mark.posix
def test_preempted_job_goes_back_into_the_queue_and_finishes(tmp_path):
    pytest.importorskip("submitit")
    engine, long = "hydra.launcher.engine", "trainer.max_steps=300"  # it must still run when it is pre-empted
    fingerprints = [read_config(compose(*SMALL, f"lora.r={r}", long))[0].fingerprint for r in (2, 4)]
    sweep = SweepCommand(
        tmp_path / "runs",
        *(
            "lora.r=2,4",
            long,
            "hydra/launcher=slurm",
            f"{engine}.partition=batch",
            f"{engine}.gpus=0",
            f"{engine}.cpus=1",
        ),
        *(f"{engine}.time_min=10", f"{engine}.poll_s=0.5"),
    )
    for fingerprint in fingerprints:
        sweep.worker_of(fingerprint)
    while len(sweep.records()) < 2 and sweep.process.poll() is None:
        time.sleep(0.2)
    cpus = subprocess.run(["sinfo", "-h", "-p", "urgent", "-o", "%c"], capture_output=True, text=True).stdout.strip()
    urgent = ["sbatch", "--parsable", "-p", "urgent", "-c", cpus, "--mem=100", "-o", "/dev/null", "--wrap", "sleep 2"]
    subprocess.run(urgent, check=True, capture_output=True)
    hasten(sweep)
    code, output = sweep.end()
    assert code == 0, output
    assert "back in the queue" in output
    record = sweep.records()
    # SLURM chooses whom the urgent job displaces: one of the two, or both.
    cut_off = [record for record in record.values() if record["attempt"] == 2]
    assert cut_off
    for again in cut_off:
        assert any("from the checkpoint" in note for note in again["notes"])
    assert [record[fingerprint]["status"] for fingerprint in fingerprints] == ["finished", "finished"]
    whole = SweepCommand(tmp_path / "whole", "lora.r=2,4", long)
    assert whole.end()[0] == 0
    assert_same_results(record, whole.records())


def hasten(sweep: SweepCommand) -> None:
    """SLURM lets a job that it has sent back wait for two minutes; its administrator need not."""
    for _ in range(120):
        if sweep.process.poll() is not None:
            return
        for line in (slurm_queue.states() or {}).items():
            if line[1] == "PENDING":
                subprocess.run(["scontrol", "update", f"jobid={line[0]}", "StartTime=now"], capture_output=True)
        time.sleep(1)
