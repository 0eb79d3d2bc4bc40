"""Workers on a ray cluster: how many fit, and a sweep on two nodes."""

import json
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from harness.errors import ConfigFault
from harness.sweep.launchers.ray import Ray, run_plain
from harness.sweep.outcome import Outcome, Status
from tests.support.sweeps import HERE, SweepCommand, assert_same_results, needs_tiny, worker_job


def test_ray_nodes_hold_as_many_workers_as_fit_on_each():
    ray = Ray(address=None, num_cpus=2, num_gpus=0.5, max_workers=None)
    assert ray.capacity([{"CPU": 5, "GPU": 1}, {"CPU": 4}, {"CPU": 3, "GPU": 2}], 0.5) == 3
    with pytest.raises(ConfigFault, match="fit on no node"):
        ray.capacity([{"CPU": 1, "GPU": 1}], 0.5)


def test_job_and_outcome_travel_as_plain_values(tmp_path):
    job = json.loads(json.dumps(asdict(worker_job("0" * 12, "m", tmp_path))))
    job["source"]["cwd"] = str(tmp_path / "gone")
    outcome = Outcome.from_plain(json.loads(json.dumps(run_plain(job))))
    assert (outcome.fingerprint, outcome.status) == ("0" * 12, Status.failed)


@pytest.mark.slow
@needs_tiny
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_two_ray_nodes_share_one_sweep(tmp_path, fingerprints, in_process):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        sweep = SweepCommand(
            tmp_path / "runs",
            *("lora.r=2,4", "hydra/launcher=ray", "hydra.launcher.engine.address=auto", *HERE),
            RAY_ADDRESS=cluster.address,
        )
        code, output = sweep.end()
    finally:
        cluster.shutdown()
    assert code == 0, output
    assert "2 workers on 2 ray nodes" in output
    record = sweep.records()
    assert [record[fingerprint]["status"] for fingerprint in fingerprints] == ["finished", "finished"]
    assert len({record["owner"]["pid"] for record in record.values()}) == 2
    assert_same_results(record, in_process)


@pytest.mark.slow
@needs_tiny
@pytest.mark.posix
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_sweep_that_is_told_to_stop_lets_its_workers_write_checkpoints(tmp_path):
    """Ray sets a handler of its own for SIGTERM, below Python, which would end the command at once."""
    one = "hydra.launcher.engine.max_workers=1"
    sweep = SweepCommand(tmp_path / "runs", "lora.r=2", "trainer.max_steps=2000", "hydra/launcher=ray", one, *HERE)
    sweep.trains("*")
    sweep.process.terminate()
    code, output = sweep.end()
    assert code == 143, output
    assert "stopped; run the same command again to resume" in output
    [record] = sweep.records().values()
    assert record["status"] == "interrupted"
    assert list((tmp_path / "runs").glob("*/checkpoints/*"))
