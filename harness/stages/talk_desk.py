"""What stands behind the page of stage=serve: who is offered, and one answer at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from harness.config import schema
from harness.errors import HarnessError, brief
from harness.pipeline.speakers import Manner, Speaker, chosen_generation, remarks_on
from harness.pipeline.talk import Talk
from harness.stages.talk_requests import DECODING, Question, Refused

BASE = "base"  # the untouched base among the speakers


class Desk:
    """Who is offered, and the one conversation partner that all requests share."""

    def __init__(
        self,
        talk: Talk,
        *,
        first: Speaker,
        external: Sequence[Speaker],
        runs: Callable[[], Sequence[Speaker]],
        instruction: str | None,
        history: bool | None,
        decoding: schema.Generation,
        words: tuple[str, ...],
    ) -> None:
        self._talk, self._external, self._runs = talk, external, runs
        self._instruction, self._history = instruction, history
        self._decoding, self._words = decoding, words
        self._first, self._base = first.key, first.model.name
        self._known: dict[str, Speaker] = {first.key: first}
        self._listing = threading.Lock()
        self._speaking = threading.Lock()
        self._closing = threading.Event()

    def listed(self) -> dict[str, Any]:
        """Everybody who can be asked now."""
        with self._listing:
            found: dict[str, Speaker] = {}
            for speaker in (*self._external, *self._runs()):
                known = self._known.get(speaker.key)
                same = known is not None and (known.stamp, known.label) == (speaker.stamp, speaker.label)
                found[speaker.key] = known if known is not None and same else speaker  # it has read its rows
            self._known = found
        return {
            "base": self._base,
            "speakers": [{"key": key, "label": speaker.label} for key, speaker in found.items()],
            "left": BASE,
            "right": self._first if self._first in found else next(iter(found), BASE),
            "history": self._history,
        }

    def described(self, key: str) -> dict[str, Any]:
        """How a speaker is asked.

        Raises:
            Refused: there is no such speaker, or its files are not what its record says.
        """
        speaker = self._speaker(key)
        manner = self._manner(speaker)
        generation = self._generation(manner)
        return {
            "key": key,
            "label": speaker.label,
            "template": manner.template,
            "turns": manner.turns,
            "instruction": manner.instruction if self._instruction is None else self._instruction,
            "examples": list(manner.examples),
            "notes": remarks_on(speaker),
            "generation": {name: getattr(generation, name) for name in DECODING},
        }

    def answer(self, question: Question, write: Callable[[dict[str, Any]], None], gone: Callable[[], bool]) -> None:
        """Write an answer's events: ``waiting``, pieces of ``text``, then ``done`` or ``error``.

        Args:
            write: sends an event; raises OSError when nobody reads any more.
            gone: whether nobody reads any more.
        """
        speaker = None if question.speaker == BASE else self._speaker(question.speaker)
        manner = self._manner(self._speaker(question.manner))
        generation = replace(self._generation(manner), **question.generation)

        def enough() -> bool:
            return gone() or self._closing.is_set()

        with self._turn_of(write, enough) as mine:
            if not mine:
                return
            if speaker is not None and not self._talk.holds(speaker):
                write({"waiting": "loading the adapter"})
            model = self._talk.base.model if speaker is None else self._talk.tuned(speaker)
            reply = self._talk.ask(
                model,
                manner,
                question.turns,
                instruction=question.instruction,
                generation=generation,
                seed=question.seed,
                told=lambda piece: write({"text": piece}),
                enough=enough,
            )
            if reply.answer.stopped:
                write({"error": "stopped: the server is closing"})
                return
            write(
                {
                    "done": {
                        "text": reply.answer.text,
                        "tokens": len(reply.answer.ids),
                        "seconds": reply.answer.seconds,
                        "cut": reply.answer.cut,
                        "forgotten": reply.forgotten,
                    }
                }
            )

    def close(self, patience_s: float) -> None:
        """End the answer that is being written, and begin no other."""
        self._closing.set()
        if self._speaking.acquire(timeout=patience_s):
            self._speaking.release()

    @contextmanager
    def _turn_of(self, write: Callable[[dict[str, Any]], None], enough: Callable[[], bool]) -> Iterator[bool]:
        """Wait until nobody else is answered; false if the reader has left before."""
        mine = self._speaking.acquire(blocking=False)
        if not mine:
            write({"waiting": "another answer is being written"})
        while not mine and not enough():
            mine = self._speaking.acquire(timeout=0.1)
        try:
            yield mine and not enough()
        finally:
            if mine:
                self._speaking.release()

    def _speaker(self, key: str) -> Speaker:
        speaker = self._known.get(key)
        if speaker is None:
            self.listed()
            speaker = self._known.get(key)
        if speaker is None:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                f"run={brief(key)} is not a finished run on {self._base} that kept its adapter; reload the page",
            )
        return speaker

    def _manner(self, speaker: Speaker) -> Manner:
        with self._listing:  # which reads rows; one request at a time
            try:
                return speaker.manner
            except HarnessError as error:
                raise Refused(HTTPStatus.CONFLICT, str(error)) from error

    def _generation(self, manner: Manner) -> schema.Generation:
        return chosen_generation(manner.generation, self._decoding, self._words)
