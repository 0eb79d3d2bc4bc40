"""stage=chat: talk to the base and to the tuned model in this terminal, answer beside answer."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import DataFault, HarnessError
from harness.plan.spec import Options, Plan
from harness.runtime.signals import is_ctrl_c
from harness.runtime.terminal import printable

if TYPE_CHECKING:
    from harness.config.schema import Generation
    from harness.pipeline.speakers import Speaker
    from harness.pipeline.talk import Reply, Talk

log = logging.getLogger(__name__)

NARROW = 60  # columns of a terminal below which the answers stand one above the other
COMMANDS = "/reset forgets the conversation, /quit or the end of input exits, //... sends a line that begins with /"
Told = Callable[[str], None]


def chat(plan: Plan, options: Options, words: Sequence[str]) -> None:
    """Answer each line of the input before and after tuning, until it ends.

    Args:
        plan: of this command; it matters for adapters from elsewhere.
        words: overrides of this command; those of ``scoring.generation`` replace the run's.

    Raises:
        ConfigFault: there is no such run, or it kept no adapter.
        ModelFault: base or adapter cannot be loaded.
        DataFault: input that is not typed at a terminal has a line that cannot be answered.
    """
    from harness.pipeline.speakers import choose_run, chosen_generation, external_speakers, remarks_on
    from harness.pipeline.talk import Talk
    from harness.runtime import threads

    speaker: Speaker
    if options.adapter_paths:
        [speaker] = external_speakers(options, plan)
    else:
        chosen = choose_run(options)
        speaker = chosen.speaker
        if chosen.note:
            log.info(chosen.note)
    manner = speaker.manner
    talk = Talk.begin(speaker, threads.for_run(options.threads, None).count)
    for remark in remarks_on(speaker):
        log.warning(remark)
    session = Session(
        talk,
        speaker,
        instruction=manner.instruction if options.prompt is None else options.prompt,
        generation=chosen_generation(manner.generation, plan.scoring.generation, words),
        seed=plan.seed,
        history=manner.turns if options.chat.history is None else options.chat.history,
    )
    for line in session.introduction(given=options.prompt is not None):
        log.info(line)
    with _quiet_at_ctrl_c():
        hold(session, lines())


@dataclass
class Session:
    """One conversation with two models, each of which hears its own answers."""

    talk: "Talk"
    speaker: "Speaker"
    instruction: str
    generation: "Generation"
    seed: int
    history: bool
    asked: int = 0
    _turns: dict[str, list[str]] = field(default_factory=dict)

    def introduction(self, given: bool) -> Iterator[str]:
        """Who answers and how; ``given``: the instruction comes from the command."""
        manner, generation = self.speaker.manner, self.generation
        sampled = f"sampled (temperature {generation.temperature:g}, top-p {generation.top_p:g})"
        how = sampled if generation.do_sample else "greedy"
        yield (
            f"{self.speaker.model.name} before and after {self.speaker.label}; template {manner.template}, {how}, "
            f"up to {generation.max_new_tokens} tokens an answer"
        )
        if self.instruction:
            whose = "from the command" if given else "of all its rows; prompt='...' takes another, prompt='' none"
            yield f"instruction ({whose}): {self.instruction}"
        if not self.history:
            why = "" if manner.turns else " (its rows have one turn each)"
            yield f"each message is answered by itself{why}; chat.history=true keeps the conversation"
        elif not manner.turns:
            yield "its rows have one turn each, so that a longer conversation is new to the tuned model"
        yield COMMANDS

    def reset(self) -> None:
        """Forget what was said."""
        self._turns.clear()

    def answer(self, message: str, shows: "dict[str, Told]") -> "dict[str, Reply]":
        """Both answers, each shown as it is written; the conversation goes on only if both were given."""
        models = {"before": self.talk.base.model, "after": self.talk.tuned(self.speaker)}
        seed, self.asked = self.seed + self.asked, self.asked + 1
        turns = {name: [*self._turns.get(name, []), message] for name in models}
        replies = {
            name: self.talk.ask(
                model,
                self.speaker.manner,
                turns[name],
                instruction=self.instruction,
                generation=self.generation,
                seed=seed,
                told=shows[name],
            )
            for name, model in models.items()
        }
        if self.history:
            self._turns = {name: [*turns[name], replies[name].answer.text] for name in models}
        return replies


def hold(session: Session, messages: Iterator[str]) -> None:
    """Answer every message. Raises DataFault for one that cannot be answered, unless somebody can type another."""
    typed = interactive()
    for line in messages:
        message = line.strip()
        if message in ("/quit", "/exit"):
            return
        if message == "/reset":
            session.reset()
            log.info("the conversation starts over")
        elif message.startswith("/") and not message.startswith("//"):
            log.warning("%s is not a command; %s", printable(message.split()[0]), COMMANDS)
        elif message:
            try:
                _show(session, message.removeprefix("/") if message.startswith("//") else message)
            except HarnessError as error:
                if not typed:
                    raise
                log.warning(str(error))
            except KeyboardInterrupt as stop:
                if not typed or not is_ctrl_c(stop):
                    raise
                print()
                log.info("stopped; this message is not part of the conversation")


def lines() -> Iterator[str]:
    """What is typed, or what comes through a pipe, line by line.

    Raises:
        DataFault: it is not text.
    """
    if interactive():
        with suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  (input() then edits lines)
        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
    try:
        yield from iter(sys.stdin.readline, "")
    except UnicodeDecodeError as error:
        raise DataFault(
            f"the input is not text in {sys.stdin.encoding} ({error.reason} at byte {error.start}); convert it, or set "
            "PYTHONUTF8=1"
        ) from error


def interactive() -> bool:
    """Whether somebody types and reads here."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _show(session: Session, message: str) -> None:
    columns = _width() if interactive() else 0
    if columns >= NARROW:
        with Beside(session.speaker) as view:
            replies = session.answer(message, view.shows)
            view.finish(replies)
        return
    if not interactive():
        print(f"{'you:':<7} {printable(message)}")
    writer = Below()
    for name, reply in session.answer(message, writer.shows).items():
        writer.finish(name, reply)
    print(flush=True)


def remark(reply: "Reply") -> str:
    """What to know about an answer; "": nothing."""
    found = []
    if not reply.answer.text:
        found.append("an empty answer")
    if reply.answer.cut:
        found.append(f"cut at {len(reply.answer.ids)} tokens; scoring.generation.max_new_tokens sets the limit")
    if reply.forgotten:
        found.append(f"given without the first {reply.forgotten} turns, which did not fit")
    return "; ".join(found)


class Below:
    """The answers one below the other, for pipes and narrow terminals."""

    def __init__(self) -> None:
        self.shows: dict[str, Told] = {name: self._teller(name) for name in ("before", "after")}
        self._begun: list[str] = []
        self._written: dict[str, str] = {}

    def finish(self, name: str, reply: "Reply") -> None:
        """End this answer's line, which ``answer`` has written; say what there is to know about it."""
        self._begin(name)
        written = self._written.get(name, "")
        if reply.answer.text.startswith(written):
            print(printable(reply.answer.text[len(written) :]), end="")
        else:  # the decoder has changed what it had written
            print(f"\n{'':<7} {printable(reply.answer.text)}", end="")
        if note := remark(reply):
            log.info("%s: %s", name, note)

    def _teller(self, name: str) -> Told:
        def told(piece: str) -> None:
            self._begin(name)
            self._written[name] = self._written.get(name, "") + piece
            print(printable(piece), end="", flush=True)

        return told

    def _begin(self, name: str) -> None:
        if name not in self._begun:
            self._begun.append(name)
            print(("\n" if len(self._begun) > 1 else "") + f"{name + ':':<7} ", end="")


class Beside(AbstractContextManager["Beside"]):
    """Two columns in a terminal, which grow while the answers are written."""

    def __init__(self, speaker: "Speaker") -> None:
        from rich.console import Console
        from rich.live import Live

        self.shows: dict[str, Told] = {name: self._teller(name) for name in ("before", "after")}
        self._texts = {"before": "", "after": ""}
        self._remarks: dict[str, str] = {}
        self._titles = {"before": f"before: {speaker.model.name}", "after": f"after: {speaker.label}"}
        console = Console(file=sys.stdout, highlight=False)
        self._live = Live(console=console, redirect_stdout=False, redirect_stderr=False, refresh_per_second=10)

    def __enter__(self) -> "Beside":
        self._live.start()
        self._live.update(self._table())
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.stop()

    def finish(self, replies: "dict[str, Reply]") -> None:
        """Show the answers as they are kept, and below them what there is to know about them."""
        self._texts = {name: reply.answer.text for name, reply in replies.items()}
        self._remarks = {name: remark(reply) for name, reply in replies.items()}
        self._live.update(self._table())

    def _teller(self, name: str) -> Told:
        def told(piece: str) -> None:
            self._texts[name] += piece
            self._live.update(self._table())

        return told

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(expand=True, padding=(0, 3, 0, 0))
        for _ in self._texts:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(Text(printable(title), style="dim") for title in self._titles.values()))
        table.add_row(*(Text(printable(text)) for text in self._texts.values()))
        if any(self._remarks.values()):
            table.add_row(*(Text(f"({text})" if text else "", style="dim") for text in self._remarks.values()))
        return table


def _width() -> int:
    from rich.console import Console

    return Console(file=sys.stdout).width


@contextmanager
def _quiet_at_ctrl_c() -> Iterator[None]:
    """Ctrl-C while nothing is written leaves, as the end of input does; other signals end the command as always."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if not is_ctrl_c(stop) or not interactive():
            raise
        print()
