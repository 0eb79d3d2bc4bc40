"""peft-harness demo: its arguments, the page it opens, and the commands it names."""

import re
import shlex
import webbrowser
from pathlib import Path

import pytest

from harness.errors import ConfigFault
from harness.stages import demo
from tests.support.runs import command

FAST = ("scale=smoke", "trainer.max_steps=2", "trainer.threads=1", "scoring.forgetting=null")


def test_arguments_are_overrides_of_the_experiment():
    assert demo.read_arguments([]) == demo.Request()
    request = demo.read_arguments(["--no-open", "runs_dir=a b", "seed=1"])
    assert request.words == ["-m", "experiment=demo", "sweep.name=demo", "runs_dir=a b", "seed=1"]
    assert not request.browser
    assert request.runs_dir == Path.cwd() / "a b"


def test_other_arguments_are_refused_together():
    with pytest.raises(ConfigFault) as fault:
        demo.read_arguments(["--help", "stage=plan", "seed=1", "fast"])
    assert [word for word in ("--help", "stage=plan", "fast") if f"demo: {word} is not an" in str(fault.value)] == [
        "--help",
        "stage=plan",
        "fast",
    ]
    assert "demo: seed=1" not in str(fault.value)
    assert command("demo", "fast").code == 2


@pytest.mark.parametrize(
    ("system", "environment", "seen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"BROWSER": "wslview"}, True),
        ("darwin", {}, True),
        ("win32", {"SSH_CONNECTION": "a 1 b 22"}, False),
    ],
)
def test_a_browser_is_wanted_only_where_somebody_sees_it(system, environment, seen):
    assert demo.has_screen(environment, system) is seen


class Browser:
    def __init__(self, error=None):
        self.opened, self.error = [], error

    def open(self, address):
        if self.error:
            raise self.error
        self.opened.append(address)
        return True


def test_a_browser_of_the_terminal_or_a_broken_one_is_not_used(monkeypatch, tmp_path):
    monkeypatch.delenv("BROWSER", raising=False)
    good, broken = Browser(), Browser(webbrowser.Error("no"))
    for browser, shown in ((good, True), (broken, False), (webbrowser.GenericBrowser("lynx"), False)):
        monkeypatch.setattr(webbrowser, "get", lambda browser=browser: browser)
        assert demo.show_page(tmp_path / "ä b.html") is shown
    assert good.opened == [(tmp_path / "ä b.html").as_uri()]


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("seed=0", "seed=0"),
        ("seed=0,1", '"seed=0,1"'),
        ("peft=glob(*)", '"peft=glob(*)"'),
        ("prompt=你好 a", '"prompt=你好 a"'),
        ('prompt="a"', "'prompt=\"a\"'"),
        ("prompt=$HOME!", "'prompt=$HOME!'"),
    ],
)
def test_words_are_quoted_for_the_shell(word, shown):
    assert demo.quoted(word) == shown
    assert shlex.split(shown) == [word]


def test_a_folder_without_the_page_is_named(tmp_path):
    with pytest.raises(ConfigFault, match="holds no sweep"):
        demo.follow_up(demo.Request((f"runs_dir={tmp_path}",)), {})


@pytest.mark.slow
def test_four_trainings_a_page_and_three_commands_that_work(tmp_path, monkeypatch):
    browser, runs = Browser(), tmp_path / "my runs"
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    done = command("demo", *FAST, f"runs_dir={runs}")
    assert done.code == 0, done.err
    assert "6 cells, 4 runs: 4 finished" in done.err + done.out
    page = Path(re.search(r"page of these runs, opened in the browser: (.*)$", done.out, re.MULTILINE)[1])
    assert page.is_file()
    assert browser.opened == [page.as_uri()]
    commands = [shlex.split(line) for line in re.findall(r"^    peft-harness (.*)$", done.out, re.MULTILINE)]
    assert len(commands) == 3
    answered = command(*commands[0])
    assert answered.code == 0, answered.err
    assert "before:" in answered.out
    for words in commands[1:]:
        planned = command(*[word for word in words if word != "stage=plan"], "stage=plan")
        assert planned.code == 0, planned.err
    again = command("demo", "--no-open", *FAST, f"runs_dir={runs}")
    assert "6 cells, 4 runs: 4 reused" in again.err + again.out
    assert len(browser.opened) == 1
