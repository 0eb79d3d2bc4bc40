"""stage=serve: the command, and its page in a browser with the base and two adapters."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from unittest import mock

import pytest

from harness.pipeline import talk as pipeline_talk
from tests.support.browser import needs_chromium, opened_url
from tests.support.paths import ROOT
from tests.support.runs import command, loaded
from tests.support.talks import serving

NASTY = "<img src=x onerror=alert(1)><script>alert('x')</script> & \"quoted\""
DONE = "!document.querySelector('#log .writing') && document.querySelector('#stop').disabled"


@pytest.fixture(scope="module")
def runs(three_runs):
    return three_runs


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_address_that_others_reach_is_refused_unless_told(host):
    done = command("stage=serve", f"serve.host='{host}'", "serve.port=0")
    assert done.code == 2
    assert f"serve.host={host} is an address that other machines can reach" in done.err
    assert "serve.allow_remote=true" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=zzz"], "matches no run"),
        (["serve.port=70000"], "serve.port=70000 is not a port"),
        (["input=x"], "input=x has no effect with stage=serve"),
        (["adapter_path=/nowhere/at/all"], "is not a folder"),
    ],
)
def test_a_wrong_command_is_one_sentence(runs, words, said):
    done = command("stage=serve", f"runs_dir={runs[0]}", *words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(runs):
    with socket.create_server(("127.0.0.1", 0)) as taken, mock.patch.object(pipeline_talk, "load_base") as load:
        port = taken.getsockname()[1]
        done = command("stage=serve", f"runs_dir={runs[0]}", f"serve.port={port}")
    assert done.code == 1
    assert f"serve.port={port} cannot be listened on" in done.err
    assert "serve.port=0 picks a free port" in done.err
    assert load.call_count == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_the_command_prints_its_address_answers_and_ends_cleanly_at_ctrl_c(runs):
    words = [sys.executable, "-m", "harness", "stage=serve", f"runs_dir={runs[0]}", "serve.port=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, **pipes)
    try:
        line = process.stdout.readline()
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends\)", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/api/speakers")
        assert len(json.loads(connection.getresponse().read())["speakers"]) == 3
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, err
    assert "the page is closed" in err
    assert "Traceback" not in err
    assert "the newest of 3 finished runs" in err


@contextmanager
def written(pause=0.05):
    """Answers that show who gave them, slowly, with markup in them."""

    def stream(model, tokenizer, prompt, generation, *, stops, told, enough):
        config = next(iter(getattr(model, "peft_config", {}).values()), None)
        who = "base" if config is None else f"r={config.r}" if hasattr(config, "r") else "soft"
        words = f"{who} heard {tokenizer.decode(prompt).count('User:')} turns {NASTY}".split(" ")
        text = ""
        for number, word in enumerate(words):
            if enough():
                return pipeline_talk.Streamed(text, (), False, True, 0.0)
            piece = word if number == 0 else f" {word}"
            text += piece
            told(piece)
            time.sleep(pause)
        return pipeline_talk.Streamed(text, tuple(range(len(words))), True, False, 1.0)

    with mock.patch.object(pipeline_talk, "stream", stream):
        yield


@pytest.fixture(scope="module")
def server(runs, random_qwen2):
    with serving(runs.folder, runs.records[0], loaded(random_qwen2)) as server:
        yield server


@needs_chromium
@pytest.mark.slow
class TestInChromium:
    """Each test has a page of its own."""

    def ask(self, page, message):
        page.fill("#message", message)
        page.press("#message", "Enter")

    def answers(self, page, side):
        return page.value(
            f"[...document.querySelectorAll('.answer[data-side={side}] .text')].map((each) => each.textContent)"
        )

    def test_base_and_two_adapters_answer_in_columns_that_grow(self, server, runs):
        keys = [record["fingerprint"] for record in runs[2]]
        with written(), opened_url(server.url) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            assert page.count("#left option") == page.count("#right option") == 4
            chosen = page.value("['left', 'right'].map((id) => document.getElementById(id).value)")
            assert chosen == ["base", keys[0]]
            assert page.value("document.querySelector('#instruction').value") == "Colour?"
            assert page.count("#examples button") == 4
            page.value(WATCH)
            self.ask(page, "sky 1")
            page.wait(f"document.querySelectorAll('.turn').length === 1 && {DONE}")
            ends = []
            for side in ("left", "right"):
                seen = [(length, at) for where, length, at in page.value("window.seen") if where == side]
                lengths, times = zip(*seen, strict=True)
                assert list(lengths) == sorted(lengths)
                assert len(set(lengths)) > 3
                assert times[-1] - times[0] > 100  # ms; the server takes far longer
                ends.append(times)
            assert ends[0][-1] <= ends[1][0]
            assert self.answers(page, "left") == [f"base heard 0 turns {NASTY}"]
            assert self.answers(page, "right") == [f"r=4 heard 0 turns {NASTY}"]
            page.select("#left", keys[1])
            page.wait("document.querySelectorAll('.divider').length === 1")
            page.wait("document.querySelector('#left-about').textContent.startsWith('template ')")
            self.ask(page, "sea 2")
            page.wait(f"document.querySelectorAll('.turn').length === 2 && {DONE}")
            assert self.answers(page, "left")[1] == f"r=8 heard 0 turns {NASTY}"
            assert self.answers(page, "right")[1] == f"r=4 heard 0 turns {NASTY}"
            assert "cut at the longest answer" in page.text(".answer .about")
            assert page.messages == []
            assert all(url.startswith(server.url) for url in page.requests)

    def test_what_people_and_models_write_stays_text(self, server):
        with written(pause=0), opened_url(server.url) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            self.ask(page, NASTY)
            page.wait(f"document.querySelectorAll('.turn').length === 1 && {DONE}")
            assert page.text(".asked") == NASTY
            assert page.count("#log img, #log script") == 0
            assert page.messages == []

    def test_earlier_turns_are_kept_if_wanted_until_a_new_conversation(self, server):
        with written(pause=0), opened_url(server.url) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            assert not page.value("document.querySelector('#history').checked")
            page.click("#settings summary")
            page.click("#history")
            for count, message in enumerate(("a", "b"), start=1):
                self.ask(page, message)
                page.wait(f"document.querySelectorAll('.turn').length === {count} && {DONE}")
            page.click("#reset")
            self.ask(page, "c")
            page.wait(f"document.querySelectorAll('.turn').length === 3 && {DONE}")
            heard = [text.split(" turns")[0] for text in self.answers(page, "right")]
            assert heard == ["r=4 heard 0", "r=4 heard 2", "r=4 heard 0"]

    def test_stop_ends_both_answers_and_the_next_message_is_answered(self, server):
        with written(pause=0.5), opened_url(server.url) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            self.ask(page, "sky")
            page.wait("document.querySelector('.answer[data-side=left] .text').textContent.length > 3")
            page.click("#stop")
            page.wait(DONE)
            notes = page.value("[...document.querySelectorAll('.answer .about')].map((each) => each.textContent)")
            assert notes == ["stopped", "stopped"]
            assert "not part of the conversation" in page.text("#status")
        with written(pause=0), opened_url(server.url) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            self.ask(page, "sky")
            page.wait(f"document.querySelectorAll('.turn').length === 1 && {DONE}")
            assert self.answers(page, "right")[0].startswith("r=4")

    def test_errors_are_shown_where_the_answer_would_be(self, server):
        with opened_url(server.url) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            self.ask(page, "x" * 600)
            page.wait(f"document.querySelectorAll('.turn').length === 1 && {DONE}")
            assert "this model reads at most" in page.text(".answer[data-side=left] .about.bad")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_controls_have_names_and_text_has_contrast(self, server, scheme, tmp_path):
        with written(pause=0), opened_url(server.url, scheme=scheme) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            self.ask(page, "sky 1")
            page.wait(f"document.querySelectorAll('.turn').length === 1 && {DONE}")
            page.click("#settings summary")
            unnamed = page.value(
                "[...document.querySelectorAll('input, select, textarea, button')]"
                ".filter((each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim()))"
                ".map((each) => each.id)"
            )
            assert unnamed == []
            assert page.value("document.querySelector('#log').getAttribute('aria-live')") == "polite"
            weak = page.value(CONTRAST)
            assert weak == []
            page.picture(tmp_path / f"{scheme}.png")
            assert (tmp_path / f"{scheme}.png").stat().st_size > 10_000

    def test_a_narrow_window_stacks_the_answers_and_nothing_hangs_over(self, server):
        with written(pause=0), opened_url(server.url, width=390) as page:
            page.wait("document.documentElement.dataset.ready === 'true'")
            self.ask(page, "word" * 60)
            page.wait(f"document.querySelectorAll('.turn').length === 1 && {DONE}")
            assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
            tops = page.value(
                "[...document.querySelectorAll('.answer')].map((each) => each.getBoundingClientRect().top)"
            )
            assert tops[1] > tops[0]


# Keeps every state of the answers: the side, how long the text is, and when.
WATCH = """(() => {
  window.seen = [];
  new MutationObserver((records) => {
    for (const record of records) {
      const side = record.target.closest?.(".answer")?.dataset.side;
      const [text] = record.addedNodes;
      if (side && record.target.className === "text" && text) {
        window.seen.push([side, text.data.length, performance.now()]);
      }
    }
  }).observe(document.querySelector("#log"), { childList: true, subtree: true });
})()"""

# Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG AA).
CONTRAST = """(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((value) => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((each) => !each.disabled && each.getClientRects().length)
    .filter((each) => {
      const [one, other] = [light(parse(getComputedStyle(each).color).slice(0, 3)), light(behind(each).slice(0, 3))];
      return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
    })
    .map((each) => each.outerHTML.slice(0, 80));
})()"""
