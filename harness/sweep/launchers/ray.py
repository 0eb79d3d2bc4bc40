"""Workers on a ray cluster."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault
from harness.runtime import signals
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import GRACE_S, Launcher, Worker, check_settings, run_jobs
from harness.sweep.launchers.worker import ConfigSource, WorkerJob
from harness.sweep.outcome import Outcome

log = logging.getLogger(__name__)


@dataclass
class Ray(Launcher):
    """Actors of a ray cluster, each of them a worker for many runs."""

    elsewhere = True

    address: str | None  # null: a cluster of this machine, for this sweep; auto: the one that is running
    num_cpus: float  # per worker
    num_gpus: float | None  # per worker; null: one if the cluster has any
    max_workers: int | None  # null: as many as the cluster has room for
    _workers: "list[RayWorker]" = field(default_factory=list, init=False)
    _joined: bool = field(default=False, init=False)

    def check(self) -> None:
        check_settings("ray", "ray", vars(self), num_cpus=0, num_gpus=0, max_workers=1)

    def run(self, jobs: Sequence[WorkerJob], folder: Path) -> Iterator[Outcome]:
        import ray

        if not ray.is_initialized():
            _join(ray, self.address)
            self._joined = True
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # A worker that asks for no GPU sees none, and model.device=auto would silently use the CPU.
        gpus = float(any(node.get("GPU") for node in nodes)) if self.num_gpus is None else self.num_gpus
        room = self.capacity(nodes, gpus)
        count = min(room, self.max_workers or room, len(jobs))
        log.info("%d workers on %d ray nodes; their logs: %s", count, len(nodes), folder / "logs")
        self._workers += [RayWorker(ray, self.num_cpus, gpus) for _ in range(len(self._workers), count)]
        return run_jobs(self._workers[:count], jobs, GRACE_S)

    def close(self) -> None:
        while self._workers:
            self._workers.pop().close()
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False

    def capacity(self, nodes: Sequence[Mapping[str, float]], num_gpus: float) -> int:
        """How many workers fit on the nodes, each worker on one node.

        Args:
            nodes: "CPU" and "GPU" of each.

        Raises:
            ConfigFault: none fits.
        """
        wanted = {name: amount for name, amount in (("CPU", self.num_cpus), ("GPU", num_gpus)) if amount}
        fits = [min((node.get(name, 0) / amount for name, amount in wanted.items()), default=1) for node in nodes]
        count = sum(math.floor(workers + 1e-6) for workers in fits)
        if count < 1:
            sizes = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigFault(
                f"hydra.launcher.engine.num_cpus={self.num_cpus} and num_gpus={num_gpus:g} fit on no node of the ray "
                f"cluster ({sizes}); lower them"
            )
        return count


def _join(ray: Any, address: str | None) -> None:
    try:
        # Each run logs to its own file; what ray would print here concerns its own internals.
        with signals.kept():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise ConfigFault(
            f"hydra.launcher.engine.address={address}: no ray cluster there ({str(error).splitlines()[0]}); start one "
            "with ray start --head, or set null for one on this machine"
        ) from error


class RayWorker(Worker):
    """One actor. Ray must not restart it: a run that kills its worker would kill the next one as well."""

    def __init__(self, ray: Any, num_cpus: float, num_gpus: float) -> None:
        self._ray = ray
        paths = [str(Path(worker.__file__).parents[3])]

        class Actor:  # local, so that ray sends it by value: other nodes may not have the harness on their path yet
            def run(self, job: dict[str, Any]) -> dict[str, Any]:
                import sys

                sys.path.extend(path for path in paths if path not in sys.path)
                from harness.sweep.launchers.ray import run_plain

                return run_plain(job)

        self._kind = ray.remote(Actor).options(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0, max_task_retries=0)
        self._actor = self._kind.remote()
        self._job: WorkerJob | None = None

    def submit(self, job: WorkerJob) -> "Future[Outcome]":
        self._job = job
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()

        def settle(answer: "Future[dict[str, Any]]") -> None:
            try:
                future.set_result(Outcome.from_plain(answer.result()))
            except BaseException as error:
                future.set_exception(error)

        self._actor.run.remote(asdict(job)).future().add_done_callback(settle)
        return future

    def ask_to_stop(self) -> None:
        worker.ask_to_stop(self._job)  # no signal reaches another machine

    def restart(self) -> None:
        self._actor = self._kind.remote()

    def close(self, busy: bool = False) -> None:
        self._ray.kill(self._actor)


def run_plain(job: dict[str, Any]) -> dict[str, Any]:
    """``worker.run_until_stopped`` on plain values, the only ones that ray need send."""
    source = ConfigSource(**{**job["source"], "searchpath": tuple(job["source"]["searchpath"])})
    outcome = worker.run_until_stopped(WorkerJob(**{**job, "overrides": tuple(job["overrides"]), "source": source}))
    return outcome.to_plain()
