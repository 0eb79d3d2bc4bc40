"""Finished runs on one base, for the stages that talk to them, and the server of the page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness.models.base import Base
from harness.pipeline.speakers import runs_on_base
from harness.pipeline.talk import Talk
from harness.stages.talk_desk import Desk
from harness.stages.talk_server import TalkServer
from tests.support.runs import command, overrides, plan_of, records_of, write_rows


class Runs(NamedTuple):
    """Where they are, the words of their commands, and their records by start."""

    folder: Path
    words: list[str]
    records: list[dict[str, Any]]


def make_runs(model: Path, folder: Path) -> Runs:
    """Two LoRA runs of different rank and one of prompt tuning."""
    runs_dir = folder / "runs"
    words = [*overrides(model, write_rows(folder / "rows", train_rows=8, others=4), runs_dir)]
    words += ["trainer.learning_rate=0.3", "trainer.max_steps=4", "scoring.generation.max_new_tokens=8"]
    for more in (["lora.r=4"], ["lora.r=8"], ["peft=prompt_tuning", "trainer.learning_rate=1.0"]):
        done = command(*words, *more)
        assert done.code == 0, done.err
    records = sorted(records_of(runs_dir).values(), key=lambda record: record["started"])
    assert len(records) == 3
    return Runs(runs_dir, words, records)


@contextmanager
def serving(folder: Path, record: dict[str, Any], base: Base) -> Iterator[TalkServer]:
    """The server of stage=serve in a thread, over the runs of the folder, with the record's on the right."""
    plan = record["plan"]

    def runs() -> Any:
        return runs_on_base(folder, plan["model"], plan["inputs"])

    with TalkServer("127.0.0.1", 0, allow_remote=False) as server:
        server.desk = Desk(
            Talk(base),
            first=next(speaker for speaker in runs() if speaker.key == record["fingerprint"]),
            external=(),
            runs=runs,
            instruction=None,
            history=None,
            decoding=plan_of()[0].scoring.generation,
            words=(),
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.desk.close(10.0)
            server.shutdown()
            thread.join(10)
