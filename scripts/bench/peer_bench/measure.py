"""Measures: trainings, sweeps, short commands and scoring; each adds lines to the results."""

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peer_bench import environments, watch
from peer_bench.contestants import CONTESTANTS, DRIVERS, OURS, ROOT, Command, Contestant, Job, our_overrides
from peer_bench.results import Results
from peer_bench.workloads import CELLS, EVALUATED, SIX, Prepared, Workload, read_prepared

SWEEP_STEPS = 20  # of each cell
OWN_SWEEPS = {"ours": "basic", "ours_packed": "packed"}  # by name: the launcher
SCORED = 200  # prompts
ANSWER = 24  # tokens
ANSWERS = {"scoring": "single", "merged": "base"}  # kind of a line -> what answers with LoRA are compared with
FAILURES = (watch.CommandFailed, environments.CannotInstall)

# Commands that should answer at once, the arguments after ``python -m harness``.
COMMANDS = {
    "plan": ("-m", "stage=plan", *SIX),
    "help": ("--help",),
    "misspelt": ("trainer.learning_rat=0.1",),
}


@dataclass
class Bench:
    """One benchmark: where it keeps things, and what it has found."""

    results: Results
    cache: Path  # environments and prepared workloads
    data_dir: Path

    def __post_init__(self) -> None:
        self._pythons: dict[str, Path] = {}

    def python(self, who: Contestant) -> Path:
        """Of the contestant's environment, made if need be."""
        return self._python(who.environment)

    @property
    def own_python(self) -> Path:
        """Of this project, installed as its users install it."""
        return self._python(environments.OWN)

    def _python(self, name: str) -> Path:
        if name not in self._pythons:
            environment = environments.ENVIRONMENTS[name]
            python = environments.make(environment, self.cache)
            self._pythons[name] = python
            if not self.results.has("versions", environment=name):
                found = environments.versions(python, environment.versions)
                self.results.add("versions", environment=name, versions=found)
        return self._pythons[name]

    def prepare(self, work: Workload) -> Prepared:
        """Base and rows of a workload on disk, written once."""
        folder = self.cache / "workloads" / f"{work.name}-{work.key}"
        if (found := read_prepared(folder)) is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)
        say(f"writing base and rows of {work.name}")
        more = [
            f"data.limits.validation={EVALUATED}",
            "data.limits.test=1",
            "model.dtype=float32",
            "model.device=cpu",
            "scoring.metrics=[]",
            "scoring.forgetting=null",
            f"lora.target_modules=[{','.join(work.targets)}]",
        ]
        prepare: list[str | Path] = [self.own_python, DRIVERS / "prepare.py", "--rows", str(work.rows), folder]
        words = [*prepare, *work.overrides(self.data_dir), *more]
        watch.run(words, cwd=ROOT, environment=OURS | {"HF_HUB_OFFLINE": "0"})
        prepared = read_prepared(folder)
        assert prepared is not None
        return prepared

    def job(self, work: Workload, who: Contestant, folder: Path) -> Job:
        prepared = self.prepare(work)
        if who.environment == "litgpt" and not (prepared.folder / "litgpt" / "tokenizer_config.json").exists():
            convert = DRIVERS / "litgpt_base.py"
            watch.run(
                [self.python(who), convert, prepared.base, prepared.folder / "litgpt"], environment=watch.ONE_THREAD
            )
        return Job(work, prepared, folder, self.data_dir, self.python(who), work.rank, work.alpha)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="peer-bench") as folder:
        yield Path(folder)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Another one begins each round, so that what drifts does not always meet the same one."""
    at = number % len(names) if names else 0
    return [*names[at:], *names[:at]]


# --- trainings ----------------------------------------------------------------------------------------------


def measure_runs(bench: Bench, work: Workload, names: Sequence[str], rounds: int) -> None:
    """Each contestant once in each round; a contestant that fails is left out of the rounds that follow."""
    broken: set[str] = set()
    for number in range(rounds):
        for name in rotated(names, number):
            if name in broken or bench.results.has(
                "run", workload=work.name, key=work.key, contestant=name, round=number
            ):
                continue
            try:
                measure_run(bench, work, CONTESTANTS[name], number)
            except FAILURES as failure:
                broken.add(name)
                say(f"{work.name}, {name}: {failure}")
                bench.results.add(
                    "failed", workload=work.name, key=work.key, contestant=name, round=number,
                    error=failure_text(failure),
                )  # fmt: skip


def failure_text(failure: Exception) -> str:
    """Without the paths of this machine: the last line, which names the error."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return (
        lines[-1].replace(str(Path.home()), "~").replace(str(ROOT.parent), "..")[:300]
        if lines
        else type(failure).__name__
    )


def measure_run(bench: Bench, work: Workload, who: Contestant, number: int) -> None:
    with scratch() as folder:
        job = bench.job(work, who, folder)
        command = who.command(job, who)
        done = train(command, folder)
        events, training_s = done.events, done.training_s
        ends = work.rows if command.pad_id == job.prepared.eos_id else 0  # counted as padding
        line = bench.results.add(
            "run", workload=work.name, key=work.key, contestant=who.name, round=number, seconds=done.seconds,
            cpu_s=done.cpu_s, first_step_s=done.first_step_s, first_step_cpu_s=done.first_step_cpu_s,
            training_s=training_s, training_cpu_s=done.training_cpu_s,
            tokens_per_s=job.prepared.tokens / training_s if training_s else None,
            peak_bytes=done.peak_bytes, load=done.load, steps=len(events.steps), positions=events.positions,
            tokens_seen=events.tokens + ends, tokens=job.prepared.tokens,
        )  # fmt: skip
        say(
            f"{work.name}, round {number + 1}, {who.name}: {line['seconds']:.1f} s, "
            f"{line['tokens_per_s'] or 0:.0f} tokens/s, {done.peak_bytes / 2**20:.0f} MiB"
        )
        if not bench.results.has("loss", workload=work.name, key=work.key, contestant=who.name):
            losses = evaluate(bench, job, who, command)
            bench.results.add(
                "loss", workload=work.name, key=work.key, contestant=who.name, loss=losses["it"], base=losses["base"]
            )
            say(f"{work.name}, {who.name}: held-out loss {losses['it']:.4f}, {losses['base']:.4f} before")


def train(command: Command, folder: Path) -> watch.Watched:
    environment = watch.ONE_THREAD | dict(command.environment)
    return watch.run(command.words, cwd=folder, environment=environment, pad_id=command.pad_id)


def evaluate(bench: Bench, job: Job, who: Contestant, command: Command) -> dict[str, float]:
    """The losses of what it trained and of the base, by the common evaluator."""
    trained = command.trained
    if "*" in str(trained):
        base, pattern = job.folder / "runs", "*/adapter"
        [trained] = base.glob(pattern)
    if command.convert:
        convert = [job.python, DRIVERS / "litgpt_weights.py", trained, job.folder / "converted"]
        watch.run(convert, environment=watch.ONE_THREAD)
        trained = job.folder / "converted" / "model.pth"
    words: list[str | Path] = [bench.own_python, DRIVERS / "held_out.py", job.prepared.folder, f"it={trained}"]
    return dict(last_json(watch.run(words, environment=watch.ONE_THREAD | OURS).output))


def last_json(output: str) -> Any:
    """What a driver printed last."""
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


# --- sweeps -------------------------------------------------------------------------------------------------


def fastest_peer(results: Results, work: Workload) -> str | None:
    """The peer whose whole command takes least, at its defaults; None if none was measured."""
    seconds: dict[str, list[float]] = {}
    for line in results.find("run", lambda line: line["workload"] == work.name):
        who = CONTESTANTS.get(line["contestant"])
        if who and who.peer and not who.tuned:
            seconds.setdefault(who.name, []).append(line["seconds"])
    return min(seconds, key=lambda name: statistics.median(seconds[name]), default=None)


def measure_sweeps(bench: Bench, work: Workload, peer: str | None, rounds: int) -> None:
    """Six cells as one command, one after another and packed, against six launches of a peer."""
    work = replace(work, steps=SWEEP_STEPS)
    names = [*OWN_SWEEPS, *([peer] if peer else [])]
    for number in range(rounds):
        for name in rotated(names, number):
            where = {"workload": work.name, "key": work.key, "contestant": name}
            if bench.results.has("sweep", **where, round=number):
                continue
            try:
                found = own_sweep(bench, work, name) if name in OWN_SWEEPS else launches(bench, work, name)
            except FAILURES as failure:
                say(f"sweep of {work.name}, {name}: {failure}")
                bench.results.add("failed", **where, round=number, error=failure_text(failure), sweep=True)
                continue
            bench.results.add("sweep", **where, round=number, **found, steps=SWEEP_STEPS, cells=len(CELLS))
            say(f"sweep of {work.name}, round {number + 1}, {name}: {found['seconds']:.1f} s")


def own_sweep(bench: Bench, work: Workload, name: str) -> dict[str, Any]:
    """One command with six cells."""
    with scratch() as folder:
        job = bench.job(work, CONTESTANTS["ours"], folder)
        fixed = [word for word in our_overrides(job, "float32") if not word.startswith(("lora.r=", "lora.lora_alpha="))]
        words: list[str | Path] = [
            bench.own_python, "-m", "harness", "-m", f"hydra/launcher={OWN_SWEEPS[name]}", *SIX,
            *fixed, f"runs_dir={folder / 'runs'}",
        ]  # fmt: skip
        done = watch.run(words, cwd=folder, environment=watch.ONE_THREAD | OURS)
        finished = list((folder / "runs").glob("*/record.json"))
        if len(finished) != len(CELLS):
            raise watch.CommandFailed(f"{len(finished)} of {len(CELLS)} cells left a record")
        return {"seconds": done.seconds, "cpu_s": done.cpu_s, "peak_bytes": done.peak_bytes, "load": done.load}


def launches(bench: Bench, work: Workload, name: str) -> dict[str, Any]:
    """The same six cells as six commands of a peer."""
    who, runs = CONTESTANTS[name], []
    for rank, alpha in CELLS:
        with scratch() as folder:
            job = replace(bench.job(work, who, folder), rank=rank, alpha=alpha)
            runs.append(train(who.command(job, who), folder))
    return {
        "seconds": sum(done.seconds for done in runs),
        "cpu_s": sum(done.cpu_s for done in runs),
        "peak_bytes": max(done.peak_bytes for done in runs),
        "load": statistics.mean(done.load for done in runs),
    }


# --- short commands -----------------------------------------------------------------------------------------


def measure_commands(bench: Bench, rounds: int) -> None:
    """Commands that train nothing, with the threads that they choose themselves."""
    for number in range(-1, rounds):  # the first reads the files into memory and is not kept
        for name, words in COMMANDS.items():
            if number >= 0 and bench.results.has("command", name=name, round=number):
                continue
            with scratch() as folder:
                where = [] if name == "help" else [f"runs_dir={folder / 'runs'}"]
                try:
                    done = watch.run(
                        [bench.own_python, "-m", "harness", *words, *where],
                        cwd=folder, environment=OURS, expected=(1, 2) if name == "misspelt" else (0,),
                    )  # fmt: skip
                except watch.CommandFailed as failure:
                    say(f"{name}: {failure}")
                    bench.results.add("failed", name=name, round=number, error=failure_text(failure))
                    continue
            if number >= 0:
                bench.results.add(
                    "command", name=name, round=number, seconds=done.seconds, cpu_s=done.cpu_s, load=done.load
                )
                say(f"{name}, round {number + 1}: {done.seconds:.2f} s")


# --- scoring ------------------------------------------------------------------------------------------------


def measure_scoring(bench: Bench, work: Workload, rounds: int) -> None:
    """Generation of many answers with an adapter: against one by one, and against the base alone."""
    for number in range(rounds):
        where = {"workload": work.name, "key": work.key, "round": number}
        for kind in ANSWERS:
            if not bench.results.has(kind, **where) and not measure_answers(bench, work, kind, where):
                return


def measure_answers(bench: Bench, work: Workload, kind: str, where: dict[str, Any]) -> bool:
    """Keep one measurement; whether it came to its end."""
    with scratch() as folder:
        job = bench.job(work, CONTESTANTS["ours"], folder)
        fixed = [
            word
            for word in our_overrides(job, "float32")
            if not word.startswith(("scoring.metrics=", "data.limits.test="))
        ]
        words: list[str | Path] = [
            bench.own_python, DRIVERS / "scoring.py", "--against", ANSWERS[kind], *fixed, f"data.limits.test={SCORED}",
            "scoring.metrics=[exact_match]", f"scoring.generation.max_new_tokens={ANSWER}",
        ]  # fmt: skip
        try:
            done = watch.run(words, cwd=folder, environment=watch.ONE_THREAD | OURS)
        except watch.CommandFailed as failure:
            say(f"{kind} of {work.name}: {failure}")
            bench.results.add("failed", **where, error=failure_text(failure), scoring=True)
            return False
    line = bench.results.add(kind, **where, **last_json(done.output), load=done.load)
    seconds = {name.removesuffix("_s"): value for name, value in line.items() if name.endswith("_s")}
    shown = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if not name.endswith("_cpu"))
    say(f"{kind} of {work.name}, round {where['round'] + 1}: {shown}")
    return True
