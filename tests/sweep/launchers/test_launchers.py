"""Launchers: the same sweep in processes, on a ray cluster and in a SLURM queue; deaths cost one run each.

The sweeps are real and small. The one through SLURM runs where a SLURM answers, such as after ``scripts/slurm_local
up`` and ``eval "$(scripts/slurm_local env)"``.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.errors import ConfigFault
from harness.plan.read import read_config
from harness.record import provenance, store
from harness.record.files import atomic_write_text
from harness.sweep.launchers import base, joblib, slurm, worker
from harness.sweep.launchers.base import Worker, outcomes_of, why_it_died
from harness.sweep.launchers.ray import Ray
from harness.sweep.launchers.worker import DIED, FAILED, FINISHED, ConfigSource, Job, Outcome
from tests.support.configs import CONF, compose

ROOT = CONF.parent
SMALL = (
    "trainer.max_steps=2",
    *("data.limits.train=8", "data.limits.validation=4", "data.limits.test=4"),
    *("scoring.metrics=[exact_match]", "scoring.forgetting=null"),
)
needs_tiny = pytest.mark.skipif(
    not (ROOT / "data" / "tiny" / "model.safetensors").exists(), reason="data/tiny is not there"
)


def job(fingerprint: str = "f" * 12, model: str = "m", folder: Path = Path("/tmp"), *overrides: str) -> Job:
    source = ConfigSource(config_dir=str(CONF), config_name="config", searchpath=(), cwd=str(ROOT))
    code = provenance.code_version()
    return Job(fingerprint, fingerprint, model, overrides, "s", source, code, str(folder), tries=0, stop=None)


def finished(fingerprint: str) -> Outcome:
    return Outcome(fingerprint, FINISHED, "", 1.0)


# --- slots ------------------------------------------------------------------------------------------------


class ThreadSlot(Worker):
    """A slot whose jobs run in a thread; a fingerprint that starts with x kills it, one with s waits for close."""

    def __init__(self, dead: bool = False) -> None:
        self.ran, self.restarts, self.closed, self._dead = [], 0, threading.Event(), dead
        self._pool = ThreadPoolExecutor(1)

    def submit(self, job: Job) -> "Future[Outcome]":
        if self._dead:
            raise RuntimeError("broken")
        self.ran.append(job.fingerprint)
        return self._pool.submit(self._run, job)

    def _run(self, job: Job) -> Outcome:
        time.sleep(0.02)
        if job.fingerprint.startswith("x"):
            raise RuntimeError("killed")
        if job.fingerprint.startswith("s"):
            self.closed.wait(60)
        return finished(job.fingerprint)

    def restart(self) -> None:
        self.restarts, self._dead = self.restarts + 1, False

    def close(self, busy: bool = False) -> None:
        self.closed.set()


def test_every_job_has_one_outcome_though_workers_die():
    slots = [ThreadSlot(), ThreadSlot()]
    outcomes = list(outcomes_of(slots, [job(name) for name in ("a", "x1", "b", "x2", "c")], 1.0))
    assert {each.fingerprint: each.status for each in outcomes} == dict.fromkeys("abc", FINISHED) | {
        "x1": DIED,
        "x2": DIED,
    }
    assert sum(slot.restarts for slot in slots) == 2


def test_worker_that_died_while_idle_is_replaced_before_it_gets_a_job():
    slot = ThreadSlot(dead=True)
    assert [each.status for each in outcomes_of([slot], [job("a")], 1.0)] == [FINISHED]
    assert slot.restarts == 1


def test_each_worker_keeps_its_base_model_as_long_as_there_is_work_for_it():
    slots = [ThreadSlot(), ThreadSlot()]
    list(outcomes_of(slots, [job(f"{model}{n}", model) for model in "ab" for n in range(4)], 1.0))
    assert sorted("".join(name[0] for name in slot.ran) for slot in slots) == ["aaaa", "bbbb"]


def test_worker_in_the_middle_of_a_job_is_ended_when_the_sweep_is():
    slots = [ThreadSlot(), ThreadSlot()]
    outcomes = outcomes_of(slots, [job(name) for name in "asb"], 0.0)
    assert next(outcomes).fingerprint == "a"
    outcomes.close()
    assert [slot.closed.is_set() for slot in slots if "s" in slot.ran] == [True]


def test_reason_of_a_death_names_the_signal():
    error = RuntimeError("A worker stopped. The exit codes of the workers are {SIGKILL(-9)}\nDetails follow")
    assert why_it_died(error) == "its process died (SIGKILL(-9)): killed, or out of memory"


STARTS_A_WORKER = """
import sys, time
sys.path.insert(0, "tests")
from pathlib import Path
from dataclasses import replace
from harness import engines
from tests.sweep.launchers.test_launchers import job
slot = engines.LokySlot({})
here = job("0" * 12, "m", Path(sys.argv[1]))
slot.submit(replace(here, source=replace(here.source, cwd="/nowhere"))).result()
print(*slot._pool._processes, flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(os.name != "posix", reason="processes are looked up by signal 0")
def test_worker_leaves_when_the_command_that_started_it_is_killed(tmp_path):
    pytest.importorskip("joblib")
    command = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_WORKER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    pid = int(command.stdout.readline())
    os.kill(pid, 0)
    command.kill()
    command.wait()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker stayed")


# --- settings ---------------------------------------------------------------------------------------------


def test_each_worker_gets_one_gpu_where_there_are_several(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,GPU-c")
    gpus = joblib.visible_gpus()
    given = [joblib.worker_environment(number, 4, gpus)["CUDA_VISIBLE_DEVICES"] for number in range(4)]
    assert given == ["GPU-a", "GPU-b", "GPU-c", "GPU-a"]


def test_single_gpu_is_left_to_all_workers():
    assert "CUDA_VISIBLE_DEVICES" not in joblib.worker_environment(0, 2, ["0"])


def test_workers_share_the_cores_unless_threads_are_set(monkeypatch):
    monkeypatch.setattr(base, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert joblib.worker_environment(0, 3, [])["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert joblib.worker_environment(0, 3, [])["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("wrong", [0, "two", True])
def test_number_of_processes_must_be_a_number(wrong):
    with pytest.raises(ConfigFault, match=r"hydra\.launcher\.engine\.n_jobs"):
        joblib.Joblib(n_jobs=wrong).check()


def test_engine_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(ConfigFault, match="pip install ray"):
        Ray(address=None, num_cpus=1, num_gpus=None, max_workers=None).check()


def test_ray_nodes_hold_as_many_workers_as_fit_on_each():
    ray = Ray(address=None, num_cpus=2, num_gpus=0.5, max_workers=None)
    assert ray._room([{"CPU": 5, "GPU": 1}, {"CPU": 4}, {"CPU": 3, "GPU": 2}], 0.5) == 3
    with pytest.raises(ConfigFault, match="fit on no node"):
        ray._room([{"CPU": 1, "GPU": 1}], 0.5)


@pytest.mark.parametrize("name", ["joblib", "ray", "slurm"])
def test_preset_names_every_setting_of_its_engine(name):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    preset = OmegaConf.load(CONF / "hydra" / "launcher" / f"{name}.yaml")
    engine = instantiate(preset.engine)
    if find_spec({"slurm": "submitit"}.get(name, name)):
        engine.check()


# --- a worker ---------------------------------------------------------------------------------------------


def test_worker_refuses_a_plan_that_is_another_here(tmp_path, weightless):
    outcome = worker.run_job(job("0" * 12, "m", tmp_path, f"model.path={weightless}", f"runs_dir={tmp_path}"))
    assert (outcome.status, "give every machine the same files" in outcome.message) == (FAILED, True)
    assert store.all_records(tmp_path) == []


def test_worker_without_the_commands_folder_says_so(tmp_path):
    here = job("0" * 12, "m", tmp_path)
    outcome = worker.run_job(replace(here, source=replace(here.source, cwd=str(tmp_path / "gone"))))
    assert outcome.status == FAILED
    assert "every machine sees" in outcome.message


def test_worker_finds_files_of_further_configuration_folders(tmp_path, weightless):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text("defaults: [default, _self_]\nepochs: 7\n")
    overrides = ("trainer=mine", f"model.path={weightless}")
    here = job("0" * 12, "m", tmp_path, *overrides)
    composed = worker._compose(replace(here, source=replace(here.source, searchpath=(f"file://{tmp_path}",))))
    assert composed.trainer.epochs == 7


@pytest.fixture
def running(tmp_path):
    """A job and its record, as a process leaves them that dies in the middle."""
    store.start_record(tmp_path, "f" * 12, "lora", {"seed": 0}, {"seed": 0})
    kept = json.loads(store.record_path(tmp_path, "f" * 12).read_text())
    kept["owner"] |= {"host": "node7", "pid": 4711}
    store.write_record(tmp_path, kept)
    here = job("f" * 12, "m", tmp_path / "sweeps" / "s")
    atomic_write_text(worker._owner_file(here), json.dumps(kept["owner"]))
    return here, tmp_path, kept


def test_record_of_a_worker_that_died_elsewhere_says_interrupted(running):
    here, runs_dir, _ = running
    assert store.read_record(runs_dir, here.fingerprint)["status"] == "running"
    worker.mark_interrupted(here, runs_dir, "node7 is gone")
    kept = store.read_record(runs_dir, here.fingerprint)
    assert (kept["status"], kept["error"]["message"]) == ("interrupted", "node7 is gone")
    assert not store.schema_faults(kept)


def test_record_that_another_process_has_taken_on_is_left_alone(running):
    here, runs_dir, kept = running
    store.write_record(runs_dir, kept | {"owner": kept["owner"] | {"pid": 4712}})
    worker.mark_interrupted(here, runs_dir, "node7 is gone")
    assert store.read_record(runs_dir, here.fingerprint)["status"] == "running"


# --- SLURM without SLURM ----------------------------------------------------------------------------------

QUEUE = {
    "partition": "gpu", "time_min": 60, "max_timeouts": 3, "signal_delay_s": 60, "cpus": 2, "gpus": 1, "mem_gb": 1.5,
    "max_parallel": 4, "plans_per_job": 2, "setup": ["module load cuda"], "more": {"account": "lab"}, "poll_s": 0.1,
}  # fmt: skip


def test_job_that_is_cut_off_goes_on_with_the_plans_it_has_left(monkeypatch):
    pytest.importorskip("submitit")
    ran = []
    monkeypatch.setattr(worker, "run_job", lambda each: ran.append(each.fingerprint) or finished(each.fingerprint))
    again = slurm.ArrayJob([job("a"), job("b")], [finished("a")]).checkpoint().function
    assert [each["fingerprint"] for each in again()] == ["a", "b"]
    assert ran == ["b"]


def test_jobs_are_batched_by_base_model():
    jobs = [job("a1", "a"), job("a2", "a"), job("a3", "a"), job("b1", "b")]
    assert [[each.fingerprint for each in batch] for batch in slurm._batches(jobs, 2)] == [["a1", "a2"], ["a3"], ["b1"]]


def test_settings_become_options_that_sbatch_knows(tmp_path):
    core = pytest.importorskip("submitit.slurm.slurm")
    text = core._make_sbatch_string("run", tmp_path, map_count=3, **slurm.Slurm(**QUEUE)._parameters())
    lines = text.splitlines()
    for option in ("partition=gpu", "time=60", "signal=USR2@60", "requeue", "account=lab", "mem=1536MB", "array=0-2%3"):
        assert f"#SBATCH --{option}" in lines, option
    assert {"module load cuda", "export OMP_NUM_THREADS=2"} <= set(lines)


def test_job_that_leaves_the_queue_without_a_result_has_died(tmp_path, monkeypatch):
    looks = iter([{"7_0": "RUNNING"}, None, {"7_0": "PENDING"}, *[{}] * slurm.LOOKS])
    monkeypatch.setattr(slurm, "_queue", lambda: next(looks))
    monkeypatch.setattr(slurm, "_end", lambda job_id: "TIMEOUT, reason TimeLimit")
    [outcome] = slurm.Slurm(**QUEUE)._outcomes({tmp_path / "7_0": [job("a")]})
    assert (outcome.fingerprint, outcome.status) == ("a", DIED)
    assert "7_0 ended without a result (TIMEOUT" in outcome.message


def test_jobs_that_an_earlier_command_left_in_the_queue_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "_queue", lambda: {"7_1": "RUNNING"})
    slurm._note(tmp_path, {tmp_path / "slurm" / "u" / "7_0": [job("a")], tmp_path / "slurm" / "u" / "7_1": [job("b")]})
    assert slurm._rejoin(tmp_path, [job("a"), job("b")]) == {tmp_path / "slurm" / "u" / "7_1": [job("b")]}


def test_slurm_that_is_not_there_is_a_readable_fault(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigFault, match="scripts/slurm_local"):
        list(slurm.Slurm(**QUEUE).run([job("a")], tmp_path))


# --- real sweeps ------------------------------------------------------------------------------------------


class Sweep:
    """One command in the background."""

    def __init__(self, runs_dir: Path, *overrides: str, **variables: str) -> None:
        self.runs_dir, self.output = runs_dir, runs_dir.with_suffix(".out")
        command = [sys.executable, "-m", "harness", "-m", *SMALL, f"runs_dir={runs_dir}", *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | variables
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def end(self, seconds: float = 400) -> tuple[int, str]:
        try:
            return self.process.wait(seconds), self.output.read_text()
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"no end after {seconds} s: {self.output.read_text()}")

    def owner(self, fingerprint: str, seconds: float = 200) -> int:
        """Process id of the worker on this plan, once there is one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for file in self.runs_dir.glob(f"sweeps/*/workers/{fingerprint}.json"):
                return json.loads(file.read_text())["pid"]
            time.sleep(0.05)
        pytest.fail(f"no worker for {fingerprint}: {self.output.read_text()}")

    def records(self) -> dict[str, dict]:
        return {kept["fingerprint"]: kept for kept in store.all_records(self.runs_dir)}


@pytest.fixture(scope="module")
def fingerprints() -> tuple[str, str]:
    """Of lora.r=2 and lora.r=4."""
    made = [read_config(compose(*SMALL, f"lora.r={r}"))[0].fingerprint for r in (2, 4)]
    return made[0], made[1]


def assert_killed_then_resumed(launcher: tuple[str, ...], runs_dir: Path, fingerprints, **variables: str) -> dict:
    """One of two workers is killed; the other run ends well; the same command does the rest. Returns the records."""
    victim, other = fingerprints
    sweep = Sweep(runs_dir, "lora.r=2,4", *launcher, **variables)
    os.kill(sweep.owner(victim), signal.SIGKILL)
    code, output = sweep.end()
    kept = sweep.records()
    assert code == 1, output
    assert f"{victim}: lora.r=2: died" in output.replace(" ".join(SMALL) + " ", "")
    assert "1 of 2 runs failed" in output
    assert kept[other]["status"] == "finished"
    assert victim not in kept or kept[victim]["status"] == "interrupted"
    again = Sweep(runs_dir, "lora.r=2,4", *launcher, **variables)
    code, output = again.end()
    assert code == 0, output
    assert again.records()[victim]["status"] == "finished"
    return again.records()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory) -> dict[str, dict]:
    """Records of lora.r=2,4 as the launcher `basic` leaves them."""
    sweep = Sweep(tmp_path_factory.mktemp("basic") / "runs", "lora.r=2,4")
    code, output = sweep.end()
    assert code == 0, output
    return sweep.records()


def assert_same_results(got: dict[str, dict], expected: dict[str, dict]) -> None:
    """All that a run leaves but its times, its place and its history."""
    assert got.keys() == expected.keys()
    for fingerprint, kept in got.items():
        for key in ("scores", "audit", "rows", "parameters", "adapter", "plan"):
            assert kept[key] == expected[fingerprint][key], key
        for key in ("curve", "validation", "best_step", "tokens"):
            assert kept["training"][key] == expected[fingerprint]["training"][key], key


@needs_tiny
def test_killed_process_costs_one_run_and_the_same_command_does_it_again(tmp_path, fingerprints, in_process):
    pytest.importorskip("joblib")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.engine.n_jobs=2")
    assert_same_results(assert_killed_then_resumed(launcher, tmp_path / "runs", fingerprints), in_process)


@needs_tiny
def test_two_ray_nodes_work_on_one_sweep(tmp_path, fingerprints, in_process):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        sweep = Sweep(
            tmp_path / "runs",
            *("lora.r=2,4", "hydra/launcher=ray", "hydra.launcher.engine.address=auto"),
            RAY_ADDRESS=cluster.address,
        )
        code, output = sweep.end()
    finally:
        cluster.shutdown()
    assert code == 0, output
    assert "2 workers on 2 ray nodes" in output
    kept = sweep.records()
    assert [kept[fingerprint]["status"] for fingerprint in fingerprints] == ["finished", "finished"]
    assert len({record["owner"]["pid"] for record in kept.values()}) == 2
    assert_same_results(kept, in_process)


# --- a real SLURM -----------------------------------------------------------------------------------------


def slurm_answers() -> bool:
    try:
        done = subprocess.run(["sinfo", "-h", "-p", "urgent", "-o", "%T"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() in ("idle", "mixed", "allocated", "completing")


needs_slurm = pytest.mark.skipif(
    not slurm_answers(), reason="no SLURM with a partition `urgent`: scripts/slurm_local up brings one up, as root"
)


@needs_tiny
@needs_slurm
def test_preempted_job_goes_back_into_the_queue_and_finishes(tmp_path):
    pytest.importorskip("submitit")
    engine, long = "hydra.launcher.engine", "trainer.max_steps=300"  # it must still run when it is pre-empted
    fingerprints = [read_config(compose(*SMALL, f"lora.r={r}", long))[0].fingerprint for r in (2, 4)]
    sweep = Sweep(
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
        sweep.owner(fingerprint)
    while len(sweep.records()) < 2 and sweep.process.poll() is None:
        time.sleep(0.2)
    cpus = subprocess.run(["sinfo", "-h", "-p", "urgent", "-o", "%c"], capture_output=True, text=True).stdout.strip()
    urgent = ["sbatch", "--parsable", "-p", "urgent", "-c", cpus, "--mem=100", "-o", "/dev/null", "--wrap", "sleep 2"]
    subprocess.run(urgent, check=True, capture_output=True)
    hasten(sweep)
    code, output = sweep.end()
    assert code == 0, output
    assert "back in the queue" in output
    kept = sweep.records()
    # SLURM chooses whom the urgent job displaces: one of the two, or both.
    cut_off = [record for record in kept.values() if record["attempt"] == 2]
    assert cut_off
    for again in cut_off:
        assert any("goes on from the checkpoint of optimizer step" in note for note in again["notes"])
    assert [kept[fingerprint]["status"] for fingerprint in fingerprints] == ["finished", "finished"]
    whole = Sweep(tmp_path / "whole", "lora.r=2,4", long)
    assert whole.end()[0] == 0
    assert_same_results(kept, whole.records())


def hasten(sweep: Sweep) -> None:
    """SLURM lets a job that it has sent back wait for two minutes; its administrator need not."""
    for _ in range(120):
        if sweep.process.poll() is not None:
            return
        for line in (slurm._queue() or {}).items():
            if line[1] == "PENDING":
                subprocess.run(["scontrol", "update", f"jobid={line[0]}", "StartTime=now"], capture_output=True)
        time.sleep(1)
