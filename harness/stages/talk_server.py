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
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.errors import HarnessError, brief, first_line, hint_for
from harness.runtime.loopback import as_address, is_loopback
from harness.shipped import VERSION
from harness.stages.talk_desk import Desk
from harness.stages.talk_requests import LARGEST, Refused, read_question

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("talk_page")
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
SPEAKERS, ANSWERS = "/api/speakers", "/api/answers"

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
