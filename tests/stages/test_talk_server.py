"""The server of stage=serve over plain HTTP: whom it answers, what it refuses, one answer at a time."""

import http.client
import json
import shutil
import socket
import time
from contextlib import contextmanager
from unittest import mock

import pytest

from harness.pipeline import talk as pipeline_talk
from harness.stages.talk_desk import BASE
from harness.stages.talk_requests import LARGEST
from harness.stages.talk_server import TalkServer
from tests.support.runs import loaded
from tests.support.talks import serving


@pytest.fixture(scope="module")
def runs(three_runs):
    return three_runs


@pytest.fixture(scope="module")
def server(runs, random_qwen2):
    with serving(runs.folder, runs.records[0], loaded(random_qwen2)) as server:
        yield server


def send(server, method, path, body=None, **headers):
    """Status, headers and content of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    kind = {"Content-Type": "application/json"} if method == "POST" else {}
    given = kind | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body if isinstance(body, bytes | None) else json.dumps(body).encode(), given)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), content


def question(runs, speaker=BASE, **changes):
    return {
        "speaker": speaker,
        "manner": runs[2][0]["fingerprint"],
        "turns": ["sky 1"],
        "instruction": "Colour?",
    } | changes


def events(content):
    return [json.loads(line) for line in content.decode().splitlines()]


def test_the_page_names_nothing_outside_and_may_run_its_own_files_alone(server):
    for path in ("/", "/page.css", "/page.js"):
        status, headers, content = send(server, "GET", path)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not any(word in content for word in (b"http:", b"https:", b"@import", b"innerHTML", b"eval("))
    assert send(server, "HEAD", "/")[2] == b""


def test_base_and_finished_runs_are_offered_and_described(server, runs):
    found = json.loads(send(server, "GET", "/api/speakers")[2])
    keys = [record["fingerprint"] for record in runs[2]]
    assert [each["key"] for each in found["speakers"]] == keys[::-1]
    assert (found["base"], found["left"], found["right"]) == ("random", BASE, keys[0])
    described = json.loads(send(server, "GET", f"/api/speakers/{keys[0]}")[2])
    assert described["instruction"] == "Colour?"
    assert described["label"].startswith("lora r=4")
    assert described["generation"]["max_new_tokens"] == 8


def test_answers_are_streamed_and_are_those_of_the_run(server, runs):
    runs_dir, _, records = runs
    for record in records:
        file = runs_dir / record["fingerprint"] / record["predictions"]
        row = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
        thing = row["prompt"].split("Input: ")[1].split("\n")[0]
        for speaker, wanted in ((BASE, row["before"]), (record["fingerprint"], row["after"])):
            asked = question(runs, speaker, manner=record["fingerprint"], turns=[thing])
            status, headers, content = send(server, "POST", "/api/answers", asked)
            assert status == 200
            assert headers["Content-Type"].startswith("application/x-ndjson")
            *pieces, last = events(content)
            assert last["done"]["text"] == wanted
            assert wanted.startswith("".join(piece.get("text", "") for piece in pieces))


def test_a_run_that_is_not_there_is_named(server, runs):
    for path in ("/api/speakers/0123456789ab", "/api/speakers/..%2F..", "/api/speakers/"):
        status, _, content = send(server, "GET", path)
        assert status == 404
        assert "is not a finished run on random that kept its adapter" in json.loads(content)["error"]
    for change in ({"speaker": "0123456789ab"}, {"manner": "0123456789ab"}, {"manner": BASE}):
        status, _, content = send(server, "POST", "/api/answers", question(runs, **change))
        assert status == 404
        assert "reload the page" in json.loads(content)["error"]
    for path in ("/etc/passwd", "/../page.html", "/page", "/favicon.ico"):
        assert send(server, "GET", path)[0] == 404


def test_runs_that_end_while_the_page_is_open_are_offered_and_damaged_ones_say_so(runs, random_qwen2, tmp_path):
    few = tmp_path / "runs"
    keys = [record["fingerprint"] for record in runs[2]]
    shutil.copytree(runs[0] / keys[0], few / keys[0])
    with serving(few, runs.records[0], loaded(random_qwen2)) as server:
        assert len(json.loads(send(server, "GET", "/api/speakers")[2])["speakers"]) == 1
        shutil.copytree(runs[0] / keys[1], few / keys[1])
        weights = few / keys[1] / "adapter" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        assert len(json.loads(send(server, "GET", "/api/speakers")[2])["speakers"]) == 2
        [*_, last] = events(send(server, "POST", "/api/answers", question(runs, keys[1]))[2])
        assert "is damaged" in last["error"]
        shutil.rmtree(few / keys[1])
        send(server, "GET", "/api/speakers")
        assert send(server, "POST", "/api/answers", question(runs, keys[1]))[0] == 404


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8808",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.9",
        "",
        "[",
        "0.0.0.0",
    ],
)
def test_names_of_others_are_refused(server, runs, host):
    for method, path, body in (("GET", "/", None), ("POST", "/api/answers", question(runs))):
        status, _, content = send(server, method, path, body, Host=host)
        assert status == 403
        assert "is not a name of this server" in json.loads(content)["error"]


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8808", "LOCALHOST"])
def test_names_of_this_machine_are_taken_at_any_port(server, host):
    assert send(server, "GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1", "Host": "localhost:2"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_pages_of_others_are_refused(server, runs, headers):
    status, _, content = send(server, "POST", "/api/answers", question(runs), **headers)
    assert status == 403
    assert "a page of another server" in json.loads(content)["error"]


def test_a_link_elsewhere_may_lead_here(server):
    assert send(server, "GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


def test_with_remote_allowed_addresses_and_own_names_are_known_and_names_of_others_are_not():
    with TalkServer("127.0.0.1", 0, allow_remote=True) as server:
        known = ["192.168.1.9:80", "[fe80::1]", "localhost", socket.gethostname()]
        assert all(map(server.knows, known))
        assert not any(map(server.knows, ["evil.example", "", f"{socket.gethostname()}.evil.example"]))


def test_a_request_that_makes_no_sense_is_refused_with_the_reason(server, runs):
    status, _, content = send(server, "POST", "/api/answers", question(runs, seed=-1))
    assert status == 400
    assert "seed: a whole number" in json.loads(content)["error"]


def test_only_json_of_a_known_length_is_read(server, runs):
    assert send(server, "POST", "/api/answers", question(runs), Content_Type="text/plain")[0] == 415
    assert send(server, "POST", "/api/answers", question(runs), Content_Length=str(LARGEST + 1))[0] == 413
    assert send(server, "POST", "/api/answers", question(runs), Content_Length="-1")[0] == 411
    assert send(server, "PUT", "/", b"")[0] == 501


def test_a_message_that_is_too_long_is_an_event(server, runs):
    [last] = events(send(server, "POST", "/api/answers", question(runs, turns=["x" * 600]))[2])
    assert "reads at most" in last["error"]


@contextmanager
def slow_answers(pieces=200, pause=0.02):
    """Answers of so many pieces; yields what was written and how each answer ended."""
    seen = []

    def stream(model, tokenizer, prompt, generation, *, stops, told, enough):
        for number in range(pieces):
            if enough():
                seen.append("stopped")
                return pipeline_talk.Streamed("", (), False, True, 0.0)
            told(f"{number} ")
            time.sleep(pause)
        seen.append("ended")
        return pipeline_talk.Streamed("whole", (1,), False, False, 1.0)

    with mock.patch.object(pipeline_talk, "stream", stream):
        yield seen


def opened(server, asked):
    """A connection whose answer has begun."""
    connection = socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=30)
    body = json.dumps(asked).encode()
    head = ["POST /api/answers HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", "", ""]
    connection.sendall("\r\n".join(head).encode() + body)
    return connection


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_second_request_waits_is_told_so_and_comes_when_the_first_reader_has_left(server, runs):
    with slow_answers() as seen:
        first = opened(server, question(runs))
        assert first.recv(4096)
        second = opened(server, question(runs))
        begun = b""
        while b"waiting" not in begun:
            begun += second.recv(4096)
        assert b"another answer is being written" in begun
        assert seen == []
        first.close()
        until(lambda: seen == ["stopped"])
        while b'"text"' not in begun:
            begun += second.recv(4096)
        second.close()
        until(lambda: seen == ["stopped", "stopped"])
    *_, last = events(send(server, "POST", "/api/answers", question(runs))[2])
    assert "done" in last


def test_who_leaves_the_queue_is_not_answered(server, runs):
    with slow_answers(pieces=50) as seen:
        first, second = opened(server, question(runs)), None
        assert first.recv(4096)
        second = opened(server, question(runs))
        while b"waiting" not in second.recv(4096):
            pass
        second.close()
        until(lambda: seen == ["ended"])
        first.close()
        assert "done" in events(send(server, "POST", "/api/answers", question(runs))[2])[-1]
        assert seen == ["ended", "ended"]


def test_an_answer_that_fails_is_told_and_the_next_one_is_given(server, runs):
    with mock.patch.object(pipeline_talk, "stream", side_effect=RuntimeError("CUDA out of memory")):
        [last] = events(send(server, "POST", "/api/answers", question(runs))[2])
    assert "RuntimeError: CUDA out of memory out of memory: lower" in last["error"]
    assert "done" in events(send(server, "POST", "/api/answers", question(runs))[2])[-1]


def test_closing_ends_the_answer_that_is_written(runs, random_qwen2):
    with serving(runs.folder, runs.records[0], loaded(random_qwen2)) as server, slow_answers() as seen:
        reader = opened(server, question(runs))
        assert reader.recv(4096)
        started = time.monotonic()
        server.desk.close(20.0)
        assert seen == ["stopped"]
        assert time.monotonic() - started < 10
        rest = b""
        while chunk := reader.recv(4096):
            rest += chunk
        assert b"the server is closing" in rest
        reader.close()
