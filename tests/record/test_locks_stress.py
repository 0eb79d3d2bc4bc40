"""Crowds of processes over one lock, killed at random; run as a script, this file is one of the workers."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.record import lock_owners, locks
from harness.record.locks import take_lock
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def start(*arguments: object) -> subprocess.Popen:
    """A worker of this file."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], env=environment)


def worker(kind: str, folder: Path, seed: int, machine: str, deaths: float, target: int) -> None:
    """Take the lock, work and release it until ``target`` pieces are done; die by chance at any system call."""
    chance = random.Random(seed)
    for name in ("link", "symlink", "lockf"):  # what the file system may lack
        if hasattr(os, name):
            delattr(os, name)
    sys.modules["fcntl"] = None  # type: ignore[assignment]
    if machine:
        lock_owners.machine = lambda: machine  # type: ignore[assignment]
    for name in ("mkdir", "rename", "unlink", "rmdir", "utime", "listdir", "open"):
        setattr(os, name, mortal(getattr(os, name), chance, deaths))
    (plans if kind == "plans" else counter)(folder, chance, target)


def mortal(call, chance: random.Random, deaths: float):
    def wrapped(*arguments, **named):
        before, after = chance.random() < deaths / 2, chance.random() < deaths / 2
        if before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **named)
        if after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def say(folder: Path, event: str, lock: locks.Lock, value: int) -> None:
    with open(folder / "events", "ab", buffering=0) as file:
        file.write(f"{lock.token} {event} {value}\n".encode())


def counter(folder: Path, chance: random.Random, target: int) -> None:
    """Count up in a file, one owner at a time: an overlap would lose a count."""
    number = folder / "number"
    while True:
        lock = take_lock(folder, beat_s=0.1, stale_s=6)
        if lock is None:
            time.sleep(chance.random() * 0.01)
            continue
        with lock:
            value = int(number.read_text()) if number.exists() else 0
            if value >= target:
                return
            say(folder, "begin", lock, value)
            for _ in range(chance.randrange(4)):
                time.sleep(chance.random() * 0.002)
                say(folder, "work", lock, value)
            if not lock.held():
                say(folder, "stalled", lock, value)
                continue
            temporary = folder / f"number.{lock.token}"
            temporary.write_text(str(value + 1))
            os.replace(temporary, number)
            say(folder, "end", lock, value + 1)


def plans(folder: Path, chance: random.Random, target: int) -> None:
    """A sweep over ``target`` plans: those that another worker holds come last."""
    later = []
    for plan in sorted((folder / f"plan-{number}" for number in range(target)), key=lambda _: chance.random()):
        lock = None if done(plan) else take_lock(plan, beat_s=0.1, stale_s=6)
        if lock:
            train(folder, plan, lock)
        elif not done(plan):
            later.append(plan)
    for plan in later:
        while not done(plan):
            lock = take_lock(plan, beat_s=0.1, stale_s=6)
            if lock:
                train(folder, plan, lock)
            time.sleep(0.01)


def done(plan: Path) -> bool:
    return (plan / "record").exists()


def train(folder: Path, plan: Path, lock: locks.Lock) -> None:
    with lock:
        if done(plan):
            return
        say(folder, "begin", lock, int(plan.name.partition("-")[2]))
        (plan / f"record.{lock.token}").write_text("finished")
        os.replace(plan / f"record.{lock.token}", plan / "record")
        say(folder, "end", lock, int(plan.name.partition("-")[2]))


def crowd(kind: str, folder: Path, size: int, machines: bool, deaths: float, target: int, kills: int = 0) -> int:
    """Run workers until one finds all done; until then the dead are replaced. Returns how many died.

    Args:
        machines: each worker takes itself for a machine of its own.
        deaths: chance of SIGKILL at each system call on the lock.
        kills: how many SIGKILLs come from outside, one every half second on average.
    """
    chance, dead, finished, workers = random.Random(0), 0, False, list[subprocess.Popen]()
    deadline = time.monotonic() + 300
    next_kill = time.monotonic() + 0.1  # the work may be done within a second
    seed = 0
    while workers or not finished:
        assert time.monotonic() < deadline, "no progress"
        while len(workers) < size and not finished:
            seed += 1
            workers.append(start(kind, folder, seed, f"machine-{seed}" if machines else "", deaths, target))
        time.sleep(0.01)
        if kills and time.monotonic() > next_kill and not finished:
            kills -= 1
            owner = (locks.holder(folder) or {}).get("pid")
            owners = [process for process in workers if process.pid == owner]
            chance.choice((owners or workers) if chance.random() < 0.7 else workers).kill()
            next_kill = time.monotonic() + chance.random()
        for process in [process for process in workers if process.poll() is not None]:
            workers.remove(process)
            assert process.returncode in (0, -signal.SIGKILL)
            dead += process.returncode != 0
            finished |= process.returncode == 0
    return dead


def blocks_of(folder: Path) -> list[list[tuple[str, str, int]]]:
    """Events in the order in which they happened, grouped by owner; fails where owners overlap."""
    blocks: list[list[tuple[str, str, int]]] = []
    for line in (folder / "events").read_text().splitlines():
        token, event, value = line.split()
        if event == "begin":
            blocks.append([])
        assert event == "begin" or blocks[-1][0][0] == token, f"{token} works while {blocks[-1][0][0]} does"
        blocks[-1].append((token, event, int(value)))
    return blocks


def check_count(folder: Path, target: int) -> None:
    value, unfinished = 0, False
    for block in blocks_of(folder):
        begun = block[0][2]
        # Who died after writing the number and before saying so has counted all the same.
        assert begun == value or (unfinished and begun == value + 1), "a count was lost"
        unfinished, value = block[-1][1] != "end", block[-1][2]
    assert int((folder / "number").read_text()) == target


@pytest.mark.parametrize(
    ("size", "machines", "deaths", "kills", "target"),
    [
        pytest.param(6, False, 0.0, 0, 200, id="nobody dies"),
        pytest.param(4, False, 0.0015, 8, 150, id="one machine"),
        pytest.param(3, True, 0.0, 2, 200, id="other machines"),
    ],
)
@pytest.mark.posix
def test_owners_never_overlap_and_no_count_is_lost(tmp_path, size, machines, deaths, kills, target):
    dead = crowd("counter", tmp_path, size, machines, deaths, target, kills)
    check_count(tmp_path, target)
    assert dead or not kills


@pytest.mark.posix
def test_two_sweeps_started_together_train_each_plan_once(tmp_path):
    crowd("plans", tmp_path, size=2, machines=False, deaths=0, target=200)
    begun = [line.split()[2] for line in (tmp_path / "events").read_text().splitlines() if " begin " in line]
    assert sorted(map(int, begun)) == list(range(200))
    assert all(done(tmp_path / f"plan-{number}") for number in range(200))


if __name__ == "__main__":
    worker(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5]), int(sys.argv[6]))
