"""Sweeps through SLURM: batches, resumption, jobs that vanish; and whole sweeps on a SLURM of two nodes."""

import pickle

import pytest

from harness.errors import ConfigFault
from harness.plan.read import read_config
from harness.sweep.launchers import slurm, slurm_queue, worker
from harness.sweep.outcome import Status
from tests.support.configs import compose
from tests.support.slurm import NODES, ask, hasten, needs_slurm, slurm_cluster
from tests.support.sweeps import HERE, SMALL, SweepCommand, assert_same_results, finished, needs_tiny, worker_job

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
    monkeypatch.setattr(slurm_queue, "states", lambda warn: {})
    outcomes = list(slurm.Slurm(**QUEUE).outcomes_of({tmp_path / "7_0": jobs, tmp_path / "7_1": [worker_job("c")]}))
    assert outcomes[:2] == [finished("a"), finished("b")]
    assert (outcomes[2].status, outcomes[2].message) == (Status.died, "its SLURM job 7_1 failed: OSError: gone")


@pytest.mark.posix
def test_job_that_leaves_the_queue_without_a_result_has_died(tmp_path, monkeypatch):
    looks = iter([{"7_0": "RUNNING"}, None, {"7_0": "PENDING"}, *[{}] * slurm.LOOKS])
    monkeypatch.setattr(slurm_queue, "states", lambda warn: next(looks))
    monkeypatch.setattr(slurm_queue, "reason_of_end", lambda job_id: "TIMEOUT, reason TimeLimit")
    [outcome] = slurm.Slurm(**QUEUE).outcomes_of({tmp_path / "7_0": [worker_job("a")]})
    assert (outcome.fingerprint, outcome.status) == ("a", Status.died)
    assert "7_0 ended without a result (TIMEOUT" in outcome.message


@pytest.mark.posix
def test_queue_that_stays_silent_is_said_once(tmp_path, monkeypatch):
    asked, looks = [], iter([{}, None, None, {"7_0": "RUNNING"}, None, *[{}] * slurm.LOOKS])
    monkeypatch.setattr(slurm_queue, "states", lambda warn: (asked.append(warn), next(looks))[1])
    monkeypatch.setattr(slurm_queue, "reason_of_end", lambda job_id: "FAILED")
    assert len(list(slurm.Slurm(**QUEUE).outcomes_of({tmp_path / "7_0": [worker_job("a")]}))) == 1
    assert asked[:6] == [True, True, False, False, True, False]


@pytest.mark.posix
def test_slurm_that_is_not_there_is_a_readable_fault(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigFault, match="scripts/slurm_local"):
        list(slurm.Slurm(**QUEUE).run([worker_job("a")], tmp_path))


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("submitit")
    with slurm_cluster():
        yield


ENGINE = "hydra.launcher.engine"
ON_SLURM = (
    *("hydra/launcher=slurm", f"{ENGINE}.partition=batch", f"{ENGINE}.gpus=0", f"{ENGINE}.cpus=1"),
    *(f"{ENGINE}.time_min=10", f"{ENGINE}.poll_s=0.5", *HERE),
)


@pytest.mark.slow
@needs_tiny
@needs_slurm
@pytest.mark.posix
def test_one_command_runs_a_sweep_on_two_nodes_and_the_next_finds_it_finished(
    cluster, tmp_path, fingerprints, in_process
):
    words = "lora.r=2,4", *ON_SLURM, f"{ENGINE}.setup=['echo $SLURMD_NODENAME >> {tmp_path}/nodes']"
    sweep = SweepCommand(tmp_path / "runs", *words)
    code, output = sweep.end()
    assert code == 0, output
    assert "SLURM jobs" in output
    assert "2 cells, 2 runs: 2 finished" in output
    assert sorted((tmp_path / "nodes").read_text().split()) == list(NODES)
    records = sweep.records()
    assert [records[fingerprint]["status"] for fingerprint in fingerprints] == ["finished", "finished"]
    assert_same_results(records, in_process)
    again = SweepCommand(tmp_path / "runs", *words)
    code, output = again.end()
    assert code == 0, output
    assert "2 of them finished earlier, 0 to run" in output
    assert "SLURM jobs" not in output
    assert again.records() == records


@pytest.mark.slow
@needs_tiny
@needs_slurm
@pytest.mark.posix
def test_cells_that_fail_or_cannot_start_say_so(cluster, tmp_path):
    failing = SweepCommand(tmp_path / "failing", "lora.r=2", "trainer.learning_rate=1e30,1e-3", *ON_SLURM)
    stuck = SweepCommand(tmp_path / "stuck", "lora.r=2", *ON_SLURM, f"{ENGINE}.cpus=64")
    stuck.says("PENDING (PartitionConfig)")
    ask("scancel", next(job for job, state in slurm_queue.states().items() if state.endswith("(PartitionConfig)")))
    code, output = stuck.end()
    assert (code, "ended without a result (CANCELLED, reason PartitionConfig)" in output) == (1, True), output
    code, output = failing.end()
    assert code == 1, output
    assert "trainer.learning_rate=1e+30 failed: the validation loss is not finite" in output
    assert "1 of 2 runs failed" in output
    assert sorted(record["status"] for record in failing.records().values()) == ["failed", "finished"]
    refused = SweepCommand(tmp_path / "refused", "lora.r=2", *ON_SLURM, f"{ENGINE}.partition=none")
    code, output = refused.end()
    assert (code, "SLURM refuses the jobs" in output, "invalid partition" in output) == (2, True, True), output


@pytest.mark.slow
@needs_tiny
@needs_slurm
@pytest.mark.posix
def test_jobs_that_are_preempted_or_out_of_time_go_back_into_the_queue_and_finish(cluster, tmp_path):
    long = "trainer.max_steps=150"  # it must still run when it is preempted
    fingerprints = [read_config(compose(*SMALL, f"lora.r={r}", long))[0].fingerprint for r in (2, 4)]
    sweep = SweepCommand(tmp_path / "runs", "lora.r=2,4", long, *ON_SLURM)
    for fingerprint in fingerprints:
        sweep.trains(fingerprint)
    jobs = dict(line.split() for line in ask("squeue", "-h", "--array", "--user=root", "-o", "%i %N").splitlines())
    late, displaced = jobs
    ask("sbatch", "-p", "urgent", "-w", jobs[displaced], "--mem=100", "-o", "/dev/null", "--wrap", "sleep 2")
    ask("scancel", "--signal=USR2", late)  # what SLURM sends shortly before the time limit
    hasten(sweep.process)
    code, output = sweep.end()
    assert code == 0, output
    assert "back in the queue" in output  # of each, unless it waits for less than a poll
    record = sweep.records()
    for fingerprint in fingerprints:
        assert (record[fingerprint]["status"], record[fingerprint]["attempt"]) == ("finished", 2)
        assert any("from the checkpoint" in note for note in record[fingerprint]["notes"])
    whole = SweepCommand(tmp_path / "whole", "lora.r=2,4", long)
    assert whole.end()[0] == 0
    assert_same_results(record, whole.records())
