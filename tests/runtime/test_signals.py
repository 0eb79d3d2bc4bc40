"""SIGTERM and Ctrl-C: raised at once, or noted until the next checkpoint."""

import os
import signal
import threading
import time

import pytest

from harness.runtime import signals


def send(signum: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), signum)


@pytest.fixture(autouse=True)
def handlers():
    """Each test listens, and leaves the handlers as they were."""
    before = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
    with signals.listening():
        yield
    assert {signum: signal.getsignal(signum) for signum in signals.SIGNALS} == before


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.posix
def test_a_signal_is_raised_at_once(signum, code):
    with pytest.raises(signals.Interrupted, match=f"stopped by {signum.name}") as caught:
        send(signum)
    assert caught.value.exit_code == code
    assert not isinstance(caught.value, Exception)  # no error handling of a run may catch it


@pytest.mark.posix
def test_the_first_signal_waits_while_deferred_and_says_what_to_press(capfd):
    steps = []

    def train():
        with signals.deferred():
            assert signals.requested() is None
            send()
            steps.append(signals.requested())

    with pytest.raises(signals.Interrupted):
        train()
    assert steps == [signal.SIGTERM]
    assert "stopping after the next checkpoint; press Ctrl-C again to stop now" in capfd.readouterr().err


@pytest.mark.posix
def test_a_second_signal_does_not_wait_but_its_echo_is_ignored(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    reached = []

    def train():
        with signals.deferred():
            send()
            now[0] += signals.ECHO_S / 2
            send()  # the parent process forwards the same stop
            reached.append("echo")
            now[0] += signals.ECHO_S * 2
            send()
            reached.append("second")

    with pytest.raises(signals.Interrupted):
        train()
    assert reached == ["echo"]


@pytest.mark.posix
def test_what_a_parent_forwards_is_never_a_second_signal(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    reached = []

    def train():
        with signals.listening(forwarded=signal.SIGTERM), signals.deferred():
            send(signal.SIGINT)  # the terminal's
            for word in ("forwarded", "again"):
                now[0] += signals.ECHO_S * 10
                send(signal.SIGTERM)
                reached.append(word)
            send(signal.SIGINT)
            reached.append("second")

    with pytest.raises(signals.Interrupted):
        train()
    assert reached == ["forwarded", "again"]


@pytest.mark.posix
def test_a_closed_terminal_stops_unless_nohup_started_the_command():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may be run with nohup themselves
    try:
        with pytest.raises(signals.Interrupted) as caught, signals.listening():
            send(signal.SIGHUP)
        assert caught.value.exit_code == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with signals.listening():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_installed():
    def work():
        before = signal.getsignal(signal.SIGTERM)
        with signals.listening():
            same.append(signal.getsignal(signal.SIGTERM) is before)

    same: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert same == [True]


@pytest.mark.posix
def test_the_time_of_a_command_ends_it_once_and_leaves_no_trace():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(signals.TimeIsUp, match="the time of its command was over"), signals.time_limit(0.02):
        time.sleep(5)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signals.requested() is None
    with signals.time_limit(30):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_time_waits_for_the_next_checkpoint(capfd):
    def train():
        with signals.deferred():
            while signals.requested() is None:
                time.sleep(0.01)

    with pytest.raises(signals.TimeIsUp), signals.time_limit(0.02):
        train()
    assert "the time is over: stopping after the next checkpoint" in capfd.readouterr().err


@pytest.mark.posix
def test_other_signals_are_no_end_of_time():
    with pytest.raises(signals.Interrupted) as caught, signals.time_limit(30):
        send()
    assert not isinstance(caught.value, signals.TimeIsUp)


def test_outside_the_main_thread_there_is_no_time_limit():
    ended = []

    def work():
        with signals.time_limit(0.01):
            time.sleep(0.05)
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]


def test_handlers_that_a_block_replaces_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with signals.kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before
