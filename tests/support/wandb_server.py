"""A local stand-in for W&B's server: answers the GraphQL calls that the real client makes in these tests.

It keeps runs, their files and streams, views (reports) and one sweep, all in memory. A call that it does not know is
an error of the test, listed in ``unknown``.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY, KEY = "team", "0123456789" * 4


class WandbServer:
    """What was sent, and what is answered."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []  # operations with their variables
        self.unknown: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}  # by name (id): what upsertBucket said
        self.streams: dict[str, list[dict[str, Any]]] = {}  # by run: parts of its file stream
        self.views: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []  # what createArtifact said
        self.files: dict[str, bytes] = {}  # by run/name
        self.projects: set[str] = set()
        self.sweep_runs: list[dict[str, Any]] = []  # arguments of the runs that the sweep still wants
        self.sweep_config = ""
        self.url = ""

    def environment(self) -> dict[str, str]:
        """Variables with which a client talks to this server only."""
        quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY} | quiet

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of one call."""
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = match[1] if match else re.sub(r"\W+", " ", query).split()[0]
        self.calls.append((name, variables))
        answer = getattr(self, f"_{name.lower()}", None)
        if answer is None:
            self.unknown.append(f"{name}: {query}")
            return {}
        return answer(variables)

    def _viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "VXNlcg==", "entity": ENTITY, "username": "tester", "email": "", "flags": "{}",
                           "teams": {"edges": []}}}  # fmt: skip

    def _projectinternalid(self, variables: dict[str, Any]) -> dict[str, Any]:
        known = variables["projectName"] in self.projects
        return {"project": {"id": "UHJvamVjdA==", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="} if known else None}

    def _upsertview(self, variables: dict[str, Any]) -> dict[str, Any]:
        identity = variables["id"] or f"Vmlldzox{len(self.views)}"
        self.views[identity] = variables
        project = {"id": "UHJvamVjdA==", "name": variables["projectName"], "entityName": variables["entityName"]}
        view = {"id": identity, "type": variables["type"], "name": variables["name"], "project": project}
        view |= {key: variables[key] for key in ("displayName", "description", "spec")}
        return {"upsertView": {"view": view | {"updatedAt": "2026-01-01T00:00:00"}, "inserted": True}}

    def _getprojects(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = [
            {
                "node": {
                    "__typename": "Project", "id": "UHJvamVjdA==", "name": name, "entityName": ENTITY,
                    "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None,
                }
            }
            for name in sorted(self.projects)
        ]  # fmt: skip
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": edges}}

    def _runresumestatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"model": {"id": "UHJvamVjdA==", "name": variables["project"], "entity": {"id": "RW50", "name": ENTITY},
                          "bucket": None}}  # fmt: skip

    def _upsertbucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name, project = variables["name"], variables["project"]
        self.projects.add(project)
        known = self.runs.setdefault(name, {})
        known |= {key: value for key, value in variables.items() if value is not None}
        bucket = {"id": f"UnVuOnYx{name}", "name": name, "displayName": variables.get("displayName") or name,
                  "description": None, "config": variables.get("config"), "sweepName": variables.get("sweep"),
                  "project": {"id": "UHJvamVjdA==", "name": project, "entity": {"id": "RW50", "name": ENTITY}},
                  "historyLineCount": 0}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _artifacttype(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _serverfeaturesquery(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _createartifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        sent = variables["input"]
        self.artifacts.append(sent)
        # Known already: the client need not upload its files.
        artifact = {"id": f"QXJ0aWZhY3Q{len(self.artifacts)}", "state": "COMMITTED"}
        return {"createArtifact": {"artifact": artifact | {"artifactSequence": {"latestArtifact": None}}}}

    def _createrunfiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{variables['run']}/{name}"} for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _sweepwithruns(self, variables: dict[str, Any]) -> dict[str, Any]:
        unset = ("description", "bestLoss", "controller", "scheduler", "heartbeatAt", "updatedAt", "createdAt")
        sweep = {"id": "U3dlZXA6", "name": variables["sweep"], "method": "grid", "state": "RUNNING",
                 "config": self.sweep_config, "earlyStopJobRunning": False, "runs": {"edges": []}}  # fmt: skip
        return {"project": {"sweep": sweep | dict.fromkeys(unset)}}

    def _createagent(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "QWdlbnQ6"}}}

    def _heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        """One run after the other, then the end."""
        running = json.loads(variables.get("runState") or "{}")
        commands = []
        if not running and self.sweep_runs:
            number = sum(name == "Heartbeat" for name, _ in self.calls)
            run = {"run_id": f"swept{number}", "program": "harness", "args": self.sweep_runs.pop(0)}
            commands = [{"type": "run"} | run]
        elif not running:
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "QWdlbnQ6"}, "commands": json.dumps(commands)}}


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server on a free port of this machine, until the block ends."""
    stand_in = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, content: Any) -> None:
            text = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            body = self._body()
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            if self.path.endswith("/graphql"):
                asked = json.loads(body)
                self._answer({"data": stand_in.graphql(asked["query"], asked.get("variables") or {})})
            elif match := re.search(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", self.path):
                stand_in.streams.setdefault(match[3], []).append(json.loads(body))
                self._answer({})
            else:
                stand_in.unknown.append(f"POST {self.path}")
                self._answer({})

        def do_PUT(self) -> None:
            stand_in.files[self.path.removeprefix("/storage/")] = self._body()
            self._answer({})

        def do_GET(self) -> None:
            stand_in.unknown.append(f"GET {self.path}")
            self._answer({})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
