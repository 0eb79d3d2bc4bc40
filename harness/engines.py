"""Where the runs of a sweep are worked off besides this process: processes here (joblib), a cluster (ray).

An engine gets jobs and yields their outcomes as they end; ``slurm`` is one more, in a module of its own. A
worker that is killed costs its own run and no other: each worker is a slot of its own, started anew.
"""

import logging
import math
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from harness import stops, worker
from harness.errors import ConfigFault, raise_together
from harness.worker import DIED, Job, Outcome, Source

log = logging.getLogger(__name__)

GRACE_S = 60.0  # for workers to write a checkpoint, and that they were interrupted


class Engine(ABC):
    """Works off jobs somewhere; settings are those of ``conf/hydra/launcher/<name>.yaml``."""

    outlives: ClassVar[bool] = False  # whether its runs go on when the command is stopped

    @abstractmethod
    def check(self) -> None:
        """Look at the settings, before anything is composed.

        Raises:
            ConfigFault: one makes no sense, or the engine's package is not installed.
        """

    @abstractmethod
    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        """One outcome for each job, as they end. A job's failure, or its worker's death, is an outcome.

        Args:
            folder: of the sweep, for logs; every worker must see it under this name.

        Raises:
            ConfigFault: no machine can take such a job.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers, which are kept from one ``run`` to the next."""


class Slot(ABC):
    """One worker process, kept for several jobs."""

    model = ""  # of its last job, which it still holds

    @abstractmethod
    def submit(self, job: Job) -> "Future[Outcome]":
        """Start the job; the future raises where the process dies."""

    @abstractmethod
    def restart(self) -> None:
        """Replace a dead process."""

    def ask_to_stop(self) -> None:  # noqa: B027 (most slots cannot be asked)
        """Let the process write a checkpoint and end its run; its future then has a result."""

    @abstractmethod
    def close(self, busy: bool = False) -> None:
        """End the process; where it is busy, in the middle of what it does."""


def through(slots: Sequence[Slot], jobs: Sequence[Job], grace_s: float) -> Iterator[Outcome]:
    """Outcomes of the jobs, each slot busy with one at a time; stopped, it gives them ``grace_s`` and ends them."""
    todo, running = list(jobs), dict[Future[Outcome], tuple[Slot, Job]]()
    try:
        while todo or running:
            busy = [slot for slot, _ in running.values()]
            for slot in [each for each in slots if each not in busy][: len(todo)]:
                job = _next(slot, slots, todo)
                todo.remove(job)
                running[_submitted(slot, job)] = slot, job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, job = running.pop(future)
                yield _outcome(future, slot, job)
    except BaseException:
        if running and stops.asked() != signal.SIGINT:  # that one the terminal has sent to all
            for slot, _ in running.values():
                slot.ask_to_stop()
        cut = wait(running, timeout=grace_s).not_done
        for slot in [running[future][0] for future in cut]:
            slot.close(busy=True)
        raise


def _next(slot: Slot, slots: Sequence[Slot], todo: Sequence[Job]) -> Job:
    """A job on the model that the slot holds, else on one that no other holds, else the next one."""
    held = {other.model for other in slots}
    same = (job for job in todo if job.model == slot.model)
    return next(same, None) or next((job for job in todo if job.model not in held), todo[0])


def _submitted(slot: Slot, job: Job) -> "Future[Outcome]":
    slot.model = job.model
    try:
        return slot.submit(job)
    except Exception:  # it died while idle
        slot.restart()
        return slot.submit(job)


def _outcome(future: "Future[Outcome]", slot: Slot, job: Job) -> Outcome:
    try:
        return future.result()
    except Exception as error:
        slot.restart()
        slot.model = ""
        return Outcome(job.fingerprint, DIED, died(error), 0.0)


def died(error: BaseException) -> str:
    """Why a worker gave no answer, in a line."""
    text = " ".join(str(error).split())
    _, found, codes = text.partition("exit codes of the workers are ")
    detail = codes.partition("}")[0].lstrip("{") if found else f"{type(error).__name__}: {text[:300]}"
    return f"its process died ({detail}): killed, or out of memory"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check(name: str, package: str, values: Mapping[str, Any], **lowest: float) -> None:
    """Refuse settings that are no number, or below the lowest that makes sense; null passes.

    Raises:
        ConfigFault: lists all of them, or says that the package is not installed.
    """
    faults = [] if find_spec(package) else [f"hydra/launcher={name} needs {package}: pip install {package}"]
    for key, low in lowest.items():
        value = values[key]
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= low):
            continue
        faults.append(f"hydra.launcher.engine.{key}={value}: give a number, {low:g} or more, or null")
    raise_together(faults)


# --- processes on this machine ----------------------------------------------------------------------------


@dataclass
class Joblib(Engine):
    """Processes on this machine, by joblib's loky; one GPU each where there are several."""

    n_jobs: int | None  # null: one per GPU; without a GPU half the cores, at least two
    _slots: "list[LokySlot]" = field(default_factory=list, init=False)

    def check(self) -> None:
        check("joblib", "joblib", vars(self), n_jobs=1)

    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        gpus = visible_gpus()
        most = self.n_jobs or len(gpus) or max(2, cores() // 2)
        count = min(most, len(jobs))
        where = f" on {min(count, len(gpus))} GPUs" if gpus else ""
        log.info("%d processes%s; their notes: %s", count, where, folder / "logs")
        # Of all that there may be, so that a run has the same threads in a short sweep and in a long one.
        self._slots += [LokySlot(environment(number, most, gpus)) for number in range(len(self._slots), count)]
        return through(self._slots[:count], jobs, GRACE_S)

    def close(self) -> None:
        while self._slots:
            self._slots.pop().close()


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` may name for a single GPU of those that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [text.strip() for text in named.split(",") if text.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def environment(number: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    """Variables of worker ``number`` of ``count``: its GPU, and its share of the cores unless that is set."""
    variables = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if len(gpus) > 1 else {}
    # Each process would start a thread per core otherwise, and all wait for one another.
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // count))} | variables


class LokySlot(Slot):
    """One worker process of loky's, which starts a fresh interpreter instead of forking this one."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._start()

    def _start(self) -> None:
        from joblib.externals.loky.process_executor import ProcessPoolExecutor

        parent = (os.getpid(),)
        self._pool = ProcessPoolExecutor(1, env=self._variables, initializer=leave_with, initargs=parent)

    def submit(self, job: Job) -> "Future[Outcome]":
        return self._pool.submit(run_alone, job)

    def ask_to_stop(self) -> None:
        for pid in list(self._pool._processes or ()):
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    def restart(self) -> None:
        self.close(busy=True)
        self._start()

    def close(self, busy: bool = False) -> None:
        self._pool.shutdown(kill_workers=busy)


_busy = threading.Lock()  # of a worker process: held during a run


def run_alone(job: Job) -> Outcome:
    """``worker.run`` in a process that leaves no run half done, whatever becomes of its parent.

    Told to stop, it answers so: the process is none the worse for it.
    """
    with _busy:
        try:
            with stops.listening():
                return worker.run(job)
        except stops.Interrupted as stop:
            return Outcome(job.fingerprint, DIED, f"its process was {stop}", 0.0)


def leave_with(parent: int, look_s: float = 2.0) -> None:
    """End this process once its parent is gone, after the run in hand; loky's workers would wait for ever."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(look_s)
        with _busy:
            os._exit(1)

    threading.Thread(target=look, name="parent", daemon=True).start()


# --- ray --------------------------------------------------------------------------------------------------


@dataclass
class Ray(Engine):
    """Actors of a ray cluster, each of them a worker for many runs."""

    address: str | None  # null: a cluster of this machine, for this sweep; auto: the one that is running
    num_cpus: float  # per worker
    num_gpus: float | None  # per worker; null: one where the cluster has any
    max_workers: int | None  # null: as many as the cluster has room for
    _slots: "list[RaySlot]" = field(default_factory=list, init=False)
    _joined: bool = field(default=False, init=False)

    def check(self) -> None:
        check("ray", "ray", vars(self), num_cpus=0, num_gpus=0, max_workers=1)

    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        import ray

        if not ray.is_initialized():
            _join(ray, self.address)
            self._joined = True
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # A worker that asks for no GPU sees none, and model.device=auto would take the CPU without a word.
        gpus = float(any(node.get("GPU") for node in nodes)) if self.num_gpus is None else self.num_gpus
        room = self._room(nodes, gpus)
        count = min(room, self.max_workers or room, len(jobs))
        log.info("%d workers on %d ray nodes; their notes: %s", count, len(nodes), folder / "logs")
        self._slots += [RaySlot(ray, self.num_cpus, gpus) for _ in range(len(self._slots), count)]
        return through(self._slots[:count], jobs, grace_s=0.0)  # ray's workers hear of no Ctrl-C

    def close(self) -> None:
        while self._slots:
            self._slots.pop().close()
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False

    def _room(self, nodes: Sequence[Mapping[str, float]], num_gpus: float) -> int:
        """How many workers the nodes hold together."""
        wanted = {name: share for name, share in (("CPU", self.num_cpus), ("GPU", num_gpus)) if share}
        shares = [min((node.get(name, 0) / share for name, share in wanted.items()), default=1) for node in nodes]
        room = sum(math.floor(share + 1e-6) for share in shares)
        if room < 1:
            have = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigFault(
                f"hydra.launcher.engine.num_cpus={self.num_cpus} and num_gpus={num_gpus:g} fit on no node of the ray "
                f"cluster ({have}); lower them"
            )
        return room


def _join(ray: Any, address: str | None) -> None:
    try:
        # Notes of the workers go to files of their own; ray's on the console are of its insides.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise ConfigFault(
            f"hydra.launcher.engine.address={address}: no ray cluster there ({str(error).splitlines()[0]}); start one "
            "with ray start --head, or set null for one of this machine"
        ) from error


class RaySlot(Slot):
    """One actor. It is not restarted by ray: a run that kills its worker would kill the next one as well."""

    def __init__(self, ray: Any, num_cpus: float, num_gpus: float) -> None:
        self._ray = ray
        paths = [str(Path(worker.__file__).parents[1])]

        class Actor:  # local, so that ray sends it by value: other nodes need not have found the harness yet
            def run(self, job: dict[str, Any]) -> dict[str, Any]:
                import sys

                sys.path.extend(path for path in paths if path not in sys.path)
                from harness import engines

                return engines.run_plain(job)

        self._kind = ray.remote(Actor).options(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0, max_task_retries=0)
        self._actor = self._kind.remote()

    def submit(self, job: Job) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()

        def settle(answer: "Future[dict[str, Any]]") -> None:
            try:
                future.set_result(Outcome(**answer.result()))
            except BaseException as error:
                future.set_exception(error)

        self._actor.run.remote(asdict(job)).future().add_done_callback(settle)
        return future

    def restart(self) -> None:
        self._actor = self._kind.remote()

    def close(self, busy: bool = False) -> None:
        self._ray.kill(self._actor)


def run_plain(job: dict[str, Any]) -> dict[str, Any]:
    """``worker.run`` on plain values, for engines that send nothing else."""
    source = Source(**{**job["source"], "searchpath": tuple(job["source"]["searchpath"])})
    return asdict(worker.run(Job(**{**job, "overrides": tuple(job["overrides"]), "source": source})))
