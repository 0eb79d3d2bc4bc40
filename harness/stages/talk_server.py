"""The server of stage=serve: one page, the speakers as JSON, and answers as lines of JSON while they are written.

One model, one answer at a time: other requests wait. It is made for the machine it runs on. Requests whose ``Host`` is
a name of somebody else's are refused, or a page elsewhere could point its own name at this address and read along (DNS
rebinding); so are requests that a page of another origin makes.
"""

import json
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.config import schema
from harness.errors import HarnessError, brief, first_line, hint_for
from harness.pipeline.speakers import Manner, Speaker, chosen_generation, remarks_on
from harness.pipeline.talk import Talk
from harness.runtime.loopback import as_address, is_loopback
from harness.shipped import VERSION

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("talk_page")
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
SPEAKERS, ANSWERS = "/api/speakers", "/api/answers"
BASE = "base"  # the untouched base among the speakers

LARGEST = 1 << 20  # bytes of a request
TURNS = 1000
LONGEST_ANSWER = 100_000
LINGER_S = 1.0  # after which a refused request that is still being sent is cut off
QUIET_S = 30.0  # after which a connection that says nothing is closed
HEADERS = {
    # The page's own files and server alone; no other page may show it in a frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Question:
    """A checked request for an answer."""

    speaker: str  # a key, or ``base``
    manner: str  # key of the run whose prompt and decoding it is asked with
    turns: tuple[str, ...]
    instruction: str
    seed: int
    generation: Mapping[str, Any]


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


class TalkServer(ThreadingHTTPServer):
    """Listens at once; answers when it has its desk."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port
    desk: Desk

    def __init__(self, host: str, port: int, allow_remote: bool) -> None:
        address = as_address(host)
        if address is not None and address.version == 6:
            self.address_family = socket.AF_INET6
        self._host, self._allow_remote = host, allow_remote
        super().__init__((host.removeprefix("[").removesuffix("]"), port), Handler)

    def server_bind(self) -> None:
        """Without looking up this machine's name, which can take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """To open in a browser."""
        address = as_address(self._host)
        host = socket.gethostname() if address is not None and address.is_unspecified else self._host
        shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{shown}:{self.server_address[1]}/"

    def knows(self, host: str) -> bool:
        """Whether a request's ``Host`` is this machine: an address or one of its own names, whatever the port.

        A page that rebinds its own name to this address still sends that name.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if not self._allow_remote:
            return is_loopback(name)
        own = {"localhost", socket.gethostname().lower(), self._host.lower()}
        return as_address(name) is not None or name in own

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are no news."""
        log.debug("a connection broke", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"peft-harness/{VERSION}", ""
    timeout = QUIET_S
    server: TalkServer

    def do_GET(self) -> None:
        """The page, and the speakers."""
        self._answering(self._get)

    def do_HEAD(self) -> None:
        """As GET, without its content."""
        self._answering(self._get)

    def do_POST(self) -> None:
        """An answer."""
        self._answering(self._post)

    def _answering(self, handle: Callable[[str], None]) -> None:
        try:
            self._require_own_page()
            handle(urlsplit(self.path).path)
        except Refused as refused:
            self.close_connection = True  # what it has sent may not have been read
            with suppress(OSError):
                self._send_json({"error": str(refused)}, refused.status)
                self._linger()
        except OSError:  # nobody reads any more
            self.close_connection = True

    def _linger(self) -> None:
        """Take what is still being sent: a connection that is closed before may lose the response, too."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_S)
        taken = 0
        while taken <= LARGEST and (chunk := self.connection.recv(1 << 16)):
            taken += len(chunk)

    def _require_own_page(self) -> None:
        """Refuse other names than this machine's, and requests by pages of others."""
        host = self.headers.get("Host", "")
        if not self.server.knows(host):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"Host: {brief(host)} is not a name of this server; open {self.server.url}",
            )
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        navigates = self.command in ("GET", "HEAD") and self.headers.get("Sec-Fetch-Mode") == "navigate"
        if (origin is not None and urlsplit(origin).netloc != host) or not (
            site in ("same-origin", "none") or navigates
        ):
            raise Refused(HTTPStatus.FORBIDDEN, "this request comes from a page of another server")

    def _get(self, path: str) -> None:
        if path in FILES:
            name, kind = FILES[path]
            self._send((PAGE / name).read_bytes(), kind)
        elif path == SPEAKERS:
            self._send_json(self.server.desk.listed())
        elif path.startswith(f"{SPEAKERS}/"):
            self._send_json(self.server.desk.described(unquote(path.removeprefix(f"{SPEAKERS}/"))))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is nothing at {brief(path)}")

    def _post(self, path: str) -> None:
        if path != ANSWERS:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is nothing at {brief(path)}")
        question = read_question(self._body())
        begun: list[bool] = []

        def write(event: dict[str, Any]) -> None:
            if not begun:  # a refusal before has a status of its own
                begun.append(True)
                self._begin_lines()
            self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()

        try:
            self.server.desk.answer(question, write, self._gone)
        except (Refused, OSError):
            raise
        except HarnessError as error:
            write({"error": str(error)})
        except Exception as error:  # whatever a model, an adapter or the device raises
            log.warning("an answer failed: %s", first_line(error), exc_info=log.isEnabledFor(logging.DEBUG))
            write({"error": " ".join(filter(None, (first_line(error), hint_for(error))))})
        if not begun:  # the reader has left while it waited
            self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, as application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or len(length) > 12:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
        if int(length) > LARGEST:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {LARGEST} bytes")
        return self.rfile.read(int(length))

    def _gone(self) -> bool:
        """Whether the browser has closed the connection: it sends nothing more, and its end can be read."""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True

    def _begin_lines(self) -> None:
        """Lines of JSON, as many as come: the end of the connection ends them."""
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self._send_headers("application/x-ndjson; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()

    def _send_json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self._send_headers(kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""
        log.debug(format, *args)


DECODING = ("max_new_tokens", "do_sample", "temperature", "top_p")


def read_question(body: bytes) -> Question:
    """The request, checked. Raises Refused, naming the field."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the request is not JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request is not an object")
    turns = content.get("turns")
    if not isinstance(turns, list) or len(turns) % 2 == 0 or len(turns) > TURNS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"turns: an odd number of texts, at most {TURNS}, the last by the user")
    generation = content.get("generation", {})
    if not isinstance(generation, dict) or set(generation) - set(DECODING):
        raise Refused(HTTPStatus.BAD_REQUEST, f"generation: an object with {', '.join(DECODING)}")
    question = Question(
        speaker=_text(content, "speaker"),
        manner=_text(content, "manner"),
        turns=tuple(_text({f"turns[{at}]": turn}, f"turns[{at}]") for at, turn in enumerate(turns)),
        instruction=_text({"instruction": "", **content}, "instruction"),
        seed=int(_number({"seed": 0, **content}, "seed", 0, 2**63 - 1, whole=True)),
        generation={name: _decoding(generation, name) for name in generation},
    )
    if not question.turns[-1].strip():
        raise Refused(HTTPStatus.BAD_REQUEST, "turns: the last one is empty")
    return question


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a text is missing")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a pair
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: holds half a character ({first_line(error)})") from error
    return value


def _decoding(generation: Mapping[str, Any], name: str) -> Any:
    if name == "do_sample":
        if not isinstance(generation[name], bool):
            raise Refused(HTTPStatus.BAD_REQUEST, "do_sample: true or false")
        return generation[name]
    if name == "max_new_tokens":
        return int(_number(generation, name, 1, LONGEST_ANSWER, whole=True))
    return float(_number(generation, name, 0.01, 1.0 if name == "top_p" else 100.0))


def _number(content: Mapping[str, Any], name: str, low: float, high: float, whole: bool = False) -> float:
    value = content[name]
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a {'whole ' if whole else ''}number from {low} to {high}")
    return value
